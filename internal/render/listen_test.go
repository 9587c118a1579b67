package render

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/nginxtest"
)

func TestParseListen(t *testing.T) {
	for text, want := range map[string]Listen{
		":5000":                               {":5000"},
		"0.0.0.0:5000":                        {"0.0.0.0:5000"},
		"10.0.0.1:5000, [fd00::1]:5000,:5001": {"10.0.0.1:5000", "[fd00::1]:5000", ":5001"},
	} {
		got, err := ParseListen(text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"", "5000", ":0", ":65536", "localhost:5000", "10.0.0.1", "fd00::1:5000", ":5000,", "::5000"} {
		_, err := ParseListen(text)
		assert.ErrorContains(t, err, "want addresses like :5000 (IPv4 and IPv6)", text)
	}
	assert.Equal(t, "10.0.0.1:1", fmt.Sprint(Listen{"10.0.0.1:1", "10.0.0.2:1"}), "for templates of the time when there was one address")
}

func TestListenOnSeveralAddresses(t *testing.T) {
	for _, any := range anyAddresses() {
		assert.Contains(t, Listen{":5000"}.each(), net.JoinHostPort(any, "5000"))
	}
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		grpcPort, httpPort, tcpPort := nginxtest.FreePort(t), nginxtest.FreePort(t), strconv.Itoa(nginxtest.FreePort(t))
		extra := fmt.Sprintf("127.0.0.2:%d", httpPort+1)
		startBalancerWith(t, binary, func(s *Settings) {
			s.Listeners = PlainListeners(Listen{":" + strconv.Itoa(grpcPort)}, Listen{":" + strconv.Itoa(httpPort), extra})
		}, nil,
			one("calls", grpcServer(t, "calls"), tags("grpc_server")),
			one("web", httpServer(t, "web", httptest.NewServer), tags("http_server")),
			one("echo", listener(t, func(conn net.Conn) { io.Copy(conn, conn) }), meta("lb-protocol", "tcp", "lb-port", tcpPort)),
		)
		hosts := []string{"127.0.0.1"}
		if len(anyAddresses()) == 2 {
			hosts = append(hosts, "::1")
		}
		for _, host := range hosts {
			b := balancer{grpc: net.JoinHostPort(host, strconv.Itoa(grpcPort)), http: net.JoinHostPort(host, strconv.Itoa(httpPort))}
			who, err := call(t, b.dial(t, "localhost"), "/any.Service/Method")
			require.Equal(t, codes.OK, grpcstatus.Code(err), "%s: %v", host, err)
			assert.Equal(t, "calls", who)
			response, _ := get(t, http.DefaultClient, "http://"+b.http+"/")
			assert.Equal(t, http.StatusOK, response.StatusCode, host)
			assert.Equal(t, host, response.Header.Get("Seen-X-Forwarded-For"), "an IPv4 client has an IPv4 address")
			conn := dialTCP(t, net.JoinHostPort(host, tcpPort))
			fmt.Fprintln(conn, "hello")
			heard, err := bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, "hello\n", heard)
		}
		response, _ := get(t, http.DefaultClient, "http://"+extra+"/")
		assert.Equal(t, http.StatusOK, response.StatusCode)
	})
}
