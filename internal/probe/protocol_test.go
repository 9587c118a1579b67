package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"lbctl/internal/endpoints"
)

// listen returns a port of 127.0.0.1, and calls serve with its connections.
func listen(t *testing.T, serve func(net.Listener)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go serve(l)
	return l.Addr().String()
}

// closedPort returns a port of 127.0.0.1 that refuses connections during the test: it is bound,
// so that no other process can get it, but nothing listens on it.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}

// hollow accepts connections and handles them like a proxy without a reachable backend.
func hollow(then func(net.Conn)) func(net.Listener) {
	return func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			then(conn)
		}
	}
}

func TestAskProtocol(t *testing.T) {
	server := grpc.NewServer()
	t.Cleanup(server.Stop)
	speaksGRPC := listen(t, func(l net.Listener) { _ = server.Serve(l) })
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	closed := closedPort(t)
	closes := listen(t, hollow(func(c net.Conn) { c.Close() }))
	silent := listen(t, hollow(func(c net.Conn) { t.Cleanup(func() { c.Close() }) }))

	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	for _, tt := range []struct {
		name     string
		protocol endpoints.Protocol
		address  string
		alive    bool
	}{
		{"a gRPC server", endpoints.GRPC, speaksGRPC, true},
		{"an HTTP server", endpoints.HTTP, address(plain), true},
		{"an HTTPS server with an unknown certificate", endpoints.HTTPS, address(secure), true},
		{"an HTTPS server for grpcs", endpoints.GRPCS, address(secure), true},
		{"TCP needs only an open port", endpoints.TCP, silent, true},
		{"a closed port", endpoints.TCP, closed, false},
		{"a connection that is closed at once, for gRPC", endpoints.GRPC, closes, false},
		{"a connection that is closed at once, for HTTP", endpoints.HTTP, closes, false},
		{"a connection that is closed at once, for TLS", endpoints.HTTPS, closes, false},
		{"a connection that stays silent, for gRPC", endpoints.GRPC, silent, false},
		{"an HTTP/1 server where gRPC is wanted", endpoints.GRPC, address(plain), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if tt.address == silent && !tt.alive {
				ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
			}
			err := askProtocol(ctx, tt.protocol, tt.address)
			if tt.alive {
				assert.NoError(t, err)
				return
			}
			assert.Error(t, err)
			assert.Equal(t, 2, failuresNeeded(err, 2), "%v", err)
		})
	}
}

func TestRealServersAreAsked(t *testing.T) {
	server := grpc.NewServer()
	t.Cleanup(server.Stop)
	ports := []string{
		listen(t, func(l net.Listener) { _ = server.Serve(l) }),
		listen(t, hollow(func(c net.Conn) { c.Close() })),
	}
	s := service("hello", "alive", "hollow")
	for i := range s.Instances {
		address, err := net.ResolveTCPAddr("tcp", ports[i])
		require.NoError(t, err)
		s.Instances[i].Address, s.Instances[i].Port = "127.0.0.1", address.Port
	}
	tb := newTable(t)
	tb.Observe(time.Now(), []endpoints.Service{s})
	tb.Observe(time.Now(), nil)
	probing(t, tb, Options{}, ask, func() { <-tb.Changed() })
	assert.Equal(t, "hello[alive]", rotation(tb.Observe(time.Now(), nil)))
}
