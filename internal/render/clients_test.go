package render

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
)

// listener calls serve with each connection, then closes it.
func listener(t *testing.T, serve func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func requireStream(t *testing.T, binary nginxtest.Binary) {
	t.Helper()
	if streamModule(t, binary) != nginx.NoStream {
		return
	}
	if os.Getenv("LB_TEST_REQUIRE") == "1" {
		t.Fatalf("LB_TEST_REQUIRE=1, but %s has no stream module (Debian: libnginx-mod-stream)", binary.Path)
	}
	t.Skipf("%s has no stream module", binary.Path)
}

func dialTCP(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn.(*net.TCPConn)
}

// A TCP client that closes its sending side still gets the answer.
func TestTCPHalfClose(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		closed := make(chan bool)
		instance := listener(t, func(conn net.Conn) {
			question, _ := io.ReadAll(conn)
			<-closed
			fmt.Fprintf(conn, "answer to %s", question)
		})
		port := strconv.Itoa(nginxtest.FreePort(t))
		startBalancer(t, binary, nil, one("count", instance, meta("lb-protocol", "tcp", "lb-port", port)))
		conn := dialTCP(t, net.JoinHostPort("127.0.0.1", port))
		fmt.Fprint(conn, "all of it")
		require.NoError(t, conn.CloseWrite())
		close(closed)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Equal(t, "answer to all of it", string(answer))
	})
}

// A TCP client can't have more connections at a time than the operator allows.
func TestTCPConnectionsPerClient(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		requireStream(t, binary)
		instance := listener(t, func(conn net.Conn) { io.Copy(conn, conn) })
		port := strconv.Itoa(nginxtest.FreePort(t))
		startBalancerWith(t, binary, func(s *Settings) { s.MaxConnsPerClient = 1 }, nil,
			one("echo", instance, meta("lb-protocol", "tcp", "lb-port", port)))
		first, second := dialTCP(t, net.JoinHostPort("127.0.0.1", port)), make([]byte, 1)
		fmt.Fprint(first, "x")
		_, err := io.ReadFull(first, second)
		require.NoError(t, err)
		conn := dialTCP(t, net.JoinHostPort("127.0.0.1", port))
		fmt.Fprint(conn, "x")
		n, err := conn.Read(second)
		assert.Zero(t, n)
		assert.Error(t, err, "the connection is closed")
	})
}

// An event arrives as soon as it is sent, also from a server that ends its response by
// closing the connection.
func TestEventsArriveAtOnce(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		next := make(chan bool)
		defer close(next)
		instance := listener(t, func(conn net.Conn) {
			http.ReadRequest(bufio.NewReader(conn))
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
			for n := 0; ; n++ {
				fmt.Fprintf(conn, "data: %d\n\n", n)
				if _, ok := <-next; !ok {
					return
				}
			}
		})
		b := startBalancer(t, binary, nil, one("events", instance, tags("http_server")))
		conn := dialTCP(t, b.http)
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		events := bufio.NewReader(response.Body)
		for n := range 3 {
			line, err := events.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("data: %d\n", n), line)
			events.ReadString('\n')
			next <- true
		}
	})
}

// An instance can ask nginx to buffer its response.
func TestResponsesAreBufferedIfTheInstanceAsksForIt(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		end := make(chan bool)
		instance := listener(t, func(conn net.Conn) {
			http.ReadRequest(bufio.NewReader(conn))
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\nX-Accel-Buffering: yes\r\n\r\nfirst")
			<-end
			fmt.Fprint(conn, " and last")
		})
		b := startBalancer(t, binary, nil, one("web", instance, tags("http_server")))
		conn := dialTCP(t, b.http)
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		n, err := conn.Read(make([]byte, 1))
		assert.Zero(t, n, "it is not buffered")
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		close(end)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Contains(t, string(answer), "first and last")
	})
}

// The instance gets the host that decided the route.
func TestHostOfARequest(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		tell := func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", r.Host, r.Header.Get("X-Forwarded-Host"))
		}
		b := startBalancer(t, binary, nil,
			one("any", handler(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "any "); tell(w, r) }), tags("http_server")),
			one("shop", handler(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "shop "); tell(w, r) }),
				meta("lb-protocol", "http", "lb-host", "shop.example.com")),
		)
		for _, c := range []struct{ name, request, want string }{
			{"the header", "GET / HTTP/1.1\r\nHost: Shop.example.com:8080\r\n", "shop Shop.example.com:8080 Shop.example.com:8080"},
			{"a URI with a host goes before the header", "GET http://shop.example.com/x?y=http://z:9/ HTTP/1.1\r\nHost: other.example\r\n", "shop shop.example.com shop.example.com"},
			{"its port, too", "GET http://shop.example.com:8080/ HTTP/1.1\r\nHost: other.example\r\n", "shop shop.example.com:8080 shop.example.com:8080"},
			{"without a path", "GET http://shop.example.com:81 HTTP/1.1\r\nHost: other.example\r\n", "shop shop.example.com:81 shop.example.com:81"},
			{"an IPv6 address", "GET http://[::1]:81/ HTTP/1.1\r\nHost: shop.example.com\r\n", "any [::1]:81 [::1]:81"},
			{"a URI in the query is none", "GET /?a=http://shop.example.com:1/ HTTP/1.1\r\nHost: other.example\r\n", "any other.example other.example"},
			{"HTTP/1.0 without a host", "GET / HTTP/1.0\r\n", "any " + b.http + " " + b.http},
			{"HTTP/1.0 with a host", "GET / HTTP/1.0\r\nHost: shop.example.com\r\n", "shop shop.example.com shop.example.com"},
		} {
			t.Run(c.name, func(t *testing.T) {
				status, body := raw(t, b.http, c.request+"Connection: close\r\n\r\n")
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, body, c.want)
			})
		}
	})
}

// CGI and WSGI don't distinguish X_Real_IP from X-Real-IP: a client could forge its address.
func TestHeadersWithUnderscoresDoNotPass(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancer(t, binary, nil, one("web", handler(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Header["X_real_ip"], r.Header.Values("X-Real-IP"))
		}), tags("http_server")))
		_, body := raw(t, b.http, "GET / HTTP/1.1\r\nHost: x\r\nX_Real_IP: 6.6.6.6\r\nConnection: close\r\n\r\n")
		assert.Contains(t, body, "[] [127.0.0.1]")
	})
}

// A server may close an idle connection just when nginx sends a request: gunicorn does so
// after two seconds, Node.js after five. So nginx must close it first.
func TestIdleConnectionsToInstancesAreClosed(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		var answered atomic.Int64
		ended := make(chan error, 1)
		instance := listener(t, func(conn net.Conn) {
			reader := bufio.NewReader(conn)
			if _, err := http.ReadRequest(reader); err != nil {
				ended <- err
				return
			}
			answered.Add(1)
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, err := reader.ReadByte()
			ended <- err
		})
		b := startBalancer(t, binary, nil, one("web", instance, tags("http_server")))
		response, body := get(t, http.DefaultClient, "http://"+b.http+"/")
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, "ok", body)
		err := <-ended
		assert.True(t, errors.Is(err, io.EOF), "nginx closes the connection: %v", err)
		assert.EqualValues(t, 1, answered.Load())
	})
}
