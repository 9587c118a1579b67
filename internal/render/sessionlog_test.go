package render

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/nginxtest"
)

// send sends a text over a connection and closes its sending side. It returns the answer.
func send(t *testing.T, address, text string) string {
	t.Helper()
	conn := dialTCP(t, address)
	fmt.Fprint(conn, text)
	conn.CloseWrite()
	answer, _ := io.ReadAll(conn) // nginx may reset a connection that it refuses
	return string(answer)
}

// nginx says of each session which service it was for, and what became of it.
func TestSessionLog(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		ca, staff := certificatestest.NewAuthority(t, "test"), certificatestest.NewAuthority(t, "staff")
		cache, host := ca.Issue(t, 100*days, "cache.test"), ca.Issue(t, 100*days, "a.db.test")
		server := &tls.Config{Certificates: []tls.Certificate{host.Certificate(t)}}
		echo := listener(t, func(c net.Conn) { io.Copy(c, c) })
		behindTLS := greeter(t, "cache", nil)
		dead, behind, slow := refusing(t), greeter(t, "db", server), listener(t, func(c net.Conn) { io.Copy(c, c) })
		port := func() string { return strconv.Itoa(nginxtest.FreePort(t)) }
		at := func(port string) string { return "127.0.0.1:" + port }
		ports := map[string]string{}
		for _, name := range []string{"echo", "half", "dead", "empty", "tls", "shared", "limited"} {
			ports[name] = port()
		}
		on := func(name string, more ...string) []string {
			return append([]string{"lb-protocol", "tcp", "lb-port", ports[name]}, more...)
		}
		for _, wantsCertificate := range []bool{false, true} {
			t.Run(fmt.Sprintf("client certificates: %t", wantsCertificate), func(t *testing.T) {
				dir := nginxtest.MemoryDir(t)
				log := startLog(t, dir, map[int]string{echo: "ECHO", dead: "DEAD", behind: "DB", slow: "SLOW", behindTLS: "HELLO"})
				startSecured(t, binary, func(dir string) {
					cache.Write(t, dir, "default")
					if wantsCertificate {
						certificatestest.Write(t, dir, "default.client-ca.pem", staff.PEM)
					}
				}, func(s *Settings) { s.AccessLogDir, s.LogRequests = dir, true },
					entry("echo", echo, meta(on("echo")...)),
					entry("half", echo, meta(on("half")...)), entry("half", dead, meta(on("half")...)),
					entry("dead", dead, meta(on("dead")...)),
					entry("tls", behindTLS, meta(on("tls", "lb-tls", "terminate")...)),
					entry("db", behind, meta(on("shared", "lb-host", "a.db.test")...)),
					entry("limited", slow, meta(on("limited", "lb-limit-service-conns", "1")...)),
				)
				assert.Equal(t, "hello", send(t, at(ports["echo"]), "hello"))
				for range 2 { // nginx begins with each in turn
					assert.Equal(t, "hello", send(t, at(ports["half"]), "hello"))
				}
				assert.Empty(t, send(t, at(ports["dead"]), "hello"))
				assert.Empty(t, send(t, at(ports["tls"]), "this is not TLS\n"))
				answer, _ := greet(t, at(ports["shared"]), &tls.Config{ServerName: "a.db.test", RootCAs: ca.Pool()})
				assert.Equal(t, "db heard hello", answer)
				greet(t, at(ports["shared"]), &tls.Config{ServerName: "x.db.test", RootCAs: ca.Pool()})
				assert.Empty(t, send(t, at(ports["shared"]), "this is not TLS\n"))
				dialTCP(t, at(ports["shared"])).Close()
				greet(t, at(ports["tls"]), &tls.Config{ServerName: "cache.test", RootCAs: ca.Pool()})
				first := dialTCP(t, at(ports["limited"]))
				fmt.Fprint(first, "hello")
				_, err := io.ReadFull(first, make([]byte, 5)) // so nginx has accepted it
				require.NoError(t, err)
				assert.Empty(t, send(t, at(ports["limited"]), "hello"))
				first.Close()
				want := map[string]int{
					"echo 200 session  ECHO=success":                    1,
					"half 200 session  ECHO=success":                    1,
					"half 200 session  DEAD=connect ECHO=success":       1,
					"dead 502 own 502 session unreachable DEAD=connect": 1,
					"db 200 session  DB=success":                        1,
					" 500 own 404 session no-route":                     2,
					" 200 session client-left":                          1,
					"tls 500 own 400 session bad-request":               1,
					"tls 200 session  HELLO=success":                    1,
					"limited 200 session  SLOW=success":                 1,
					"limited 503 own 429 session rate-limit":            1,
				}
				if wantsCertificate {
					want["tls 500 own 496 session client-certificate"] = 2
					delete(want, "tls 500 own 400 session bad-request")
					delete(want, "tls 200 session  HELLO=success")
				}
				assert.Equal(t, want, log.wait(t, 12))
			})
		}
	})
}
