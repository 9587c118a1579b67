package render

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/nginxtest"
)

// greeter answers each connection with its name and the first line that it reads.
func greeter(t *testing.T, name string, config *tls.Config) (port int) {
	t.Helper()
	return listener(t, func(conn net.Conn) {
		if config != nil {
			conn = tls.Server(conn, config)
		}
		line := make([]byte, 5)
		if _, err := io.ReadFull(conn, line); err == nil {
			fmt.Fprintf(conn, "%s heard %s", name, line)
		}
		conn.Close()
	})
}

// greet says hello, and returns the answer; "" if the connection was closed.
func greet(t *testing.T, address string, config *tls.Config) (answer, serial string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	if config != nil {
		secure := tls.Client(conn, config)
		if secure.Handshake() != nil {
			return "", ""
		}
		conn, serial = secure, secure.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	fmt.Fprint(conn, "hello")
	text, _ := io.ReadAll(conn)
	return string(text), serial
}

func TestTLSOverTCP(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		ca, staff := certificatestest.NewAuthority(t, "test"), certificatestest.NewAuthority(t, "staff")
		cache, other := ca.Issue(t, 100*days, "cache.test"), ca.Issue(t, 100*days, "other.test")
		a, wild := ca.Issue(t, 100*days, "a.db.test"), ca.Issue(t, 100*days, "*.db.test")
		anna := staff.Issue(t, 100*days, "anna").Certificate(t)
		server := func(p certificatestest.Pair) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{p.Certificate(t)}}
		}
		client := func(host string, c ...tls.Certificate) *tls.Config {
			return &tls.Config{ServerName: host, RootCAs: ca.Pool(), Certificates: c}
		}
		port, shared := nginxtest.FreePort(t), nginxtest.FreePort(t)
		at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
		for _, wantsCertificate := range []bool{false, true} {
			t.Run(fmt.Sprintf("client certificates: %t", wantsCertificate), func(t *testing.T) {
				b := startSecured(t, binary, func(dir string) {
					cache.Write(t, dir, "cache")
					other.Write(t, dir, "other")
					if wantsCertificate {
						certificatestest.Write(t, dir, "default.client-ca.pem", staff.PEM)
					}
				}, nil,
					entry("cache", greeter(t, "cache", nil), meta("lb-port", strconv.Itoa(port), "lb-tls", "terminate")),
					entry("db-a", greeter(t, "db-a", server(a)), meta("lb-port", strconv.Itoa(shared), "lb-host", "a.db.test")),
					entry("db-rest", greeter(t, "db-rest", server(wild)), meta("lb-port", strconv.Itoa(shared), "lb-host", "*.db.test")),
				)
				b.expectTCP(t, wantsCertificate, at(port), client("cache.test"), client("cache.test", anna), cache.Serial(t))
				if !wantsCertificate {
					answer, serial := greet(t, at(port), client("other.test"))
					assert.Equal(t, "cache heard hello", answer)
					assert.Equal(t, other.Serial(t), serial, "the certificate of the host that the client names")
					answer, _ = greet(t, at(port), nil)
					assert.Empty(t, answer, "without TLS")
				}
				for host, want := range map[string]struct{ answer, serial string }{
					"a.db.test": {"db-a heard hello", a.Serial(t)},
					"A.DB.test": {"db-a heard hello", a.Serial(t)},
					"b.db.test": {"db-rest heard hello", wild.Serial(t)},
					"c.test":    {"", ""},
				} {
					answer, serial := greet(t, at(shared), client(host))
					assert.Equal(t, want.answer, answer, host)
					assert.Equal(t, want.serial, serial, "the TLS of the instance of %s", host)
				}
			})
		}
	})
}

// When an instance has ended a connection whose TLS nginx ends, the client is told so in TLS: it
// can tell that from a connection that was cut.
func TestTheEndOfATCPConnectionIsToldInTLS(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		ca := certificatestest.NewAuthority(t, "ca")
		port := strconv.Itoa(nginxtest.FreePort(t))
		startSecured(t, binary, func(dir string) { ca.Issue(t, 100*days, "cache.test").Write(t, dir, "cache") }, nil,
			entry("cache", greeter(t, "cache", nil), meta("lb-port", port, "lb-tls", "terminate")))
		// Package tls takes both ends for the same, so look at the bytes. Only TLS 1.2 shows the type
		// of each record.
		plain := dialTCP(t, net.JoinHostPort("127.0.0.1", port))
		var read bytes.Buffer
		conn := tls.Client(recorded{plain, &read}, &tls.Config{ServerName: "cache.test", RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12})
		fmt.Fprint(conn, "hello")
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Equal(t, "cache heard hello", string(answer))
		const header, alert = 5, 21
		var last byte
		for rest := read.Bytes(); len(rest) >= header; {
			last = rest[0]
			rest = rest[min(len(rest), header+int(rest[3])<<8+int(rest[4])):]
		}
		assert.Equal(t, byte(alert), last, "the type of the last record")
	})
}

// recorded keeps what is read from a connection.
type recorded struct {
	net.Conn
	read *bytes.Buffer
}

func (r recorded) Read(into []byte) (int, error) {
	n, err := r.Conn.Read(into)
	r.read.Write(into[:n])
	return n, err
}

// expectTCP expects that a TCP service answers clients, without a certificate only if none is
// wanted.
func (b *secured) expectTCP(t *testing.T, wantsCertificate bool, address string, without, with *tls.Config, serial string) {
	t.Helper()
	answer, got := greet(t, address, with)
	assert.Equal(t, "cache heard hello", answer)
	assert.Equal(t, serial, got)
	want := "cache heard hello"
	if wantsCertificate {
		want = ""
	}
	answer, _ = greet(t, address, without)
	assert.Equal(t, want, answer)
}
