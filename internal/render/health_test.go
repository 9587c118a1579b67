package render

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginxtest"
)

// TestHealthBelongsToNoService asks for the health of the services without an lbctl, and looks at
// what nginx logs.
func TestHealthBelongsToNoService(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		dir := nginxtest.MemoryDir(t)
		b := startBalancerWith(t, binary, func(s *Settings) {
			s.AccessLogDir, s.LogRequests = dir, true
			s.Health = Health{HTTP: HealthUnrouted, GRPC: HealthUnrouted, Path: "/internal/health"}
		}, nil)
		reader, err := accesslog.New(accesslog.Options{Dir: dir, Reopen: func() error { return nil }})
		require.NoError(t, err)
		var mu sync.Mutex
		var seen []string
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			reader.Run(ctx, func(r *accesslog.Record) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, fmt.Sprintf("%s health %t, status %d, own %d, grpc %d", r.Path, r.Health(), r.Status, r.OwnError, r.GRPCStatus))
			})
		})
		t.Cleanup(func() { cancel(); done.Wait() })

		response, body := get(t, http.DefaultClient, "http://"+b.http+"/internal/health")
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
		assert.Equal(t, "application/json", response.Header.Get("Content-Type"))
		assert.NotEmpty(t, response.Header.Get("X-Request-Id"))
		assert.Contains(t, body, `{"error":"nginx serves, but lbctl`)
		response, _ = get(t, http.DefaultClient, "http://"+b.http+"/health")
		assert.Equal(t, http.StatusNotFound, response.StatusCode)
		_, err = call(t, b.dial(t, "localhost"), "/grpc.health.v1.Health/Check")
		assert.Equal(t, codes.Unavailable, grpcstatus.Code(err))
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen) >= 3
		}, 20*time.Second, 10*time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		assert.ElementsMatch(t, []string{
			"/internal/health health true, status 503, own 503, grpc -1",
			"/health health false, status 404, own 404, grpc -1",
			"/grpc.health.v1.Health/Check health true, status 200, own 503, grpc 14",
		}, seen)
	})
}

// TestNobodyKeepsOthersFromAsking has one client watch as often as it can.
func TestNobodyKeepsOthersFromAsking(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		b := startBalancerWith(t, binary, func(s *Settings) { s.Health = Health{HTTP: HealthUnrouted, GRPC: HealthUnrouted} }, nil)
		listener, err := net.Listen("unix", b.settings.RunFile(HealthSocketGRPC))
		require.NoError(t, err)
		require.NoError(t, os.Chmod(b.settings.RunFile(HealthSocketGRPC), 0o666)) // nginx's workers may have another user
		server := grpc.NewServer()
		healthpb.RegisterHealthServer(server, health.NewServer())
		go server.Serve(listener)
		t.Cleanup(server.Stop)
		watch := func(conn *grpc.ClientConn) error {
			stream, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
			require.NoError(t, err)
			_, err = stream.Recv()
			return err
		}
		for range 3 {
			conn := b.dial(t, "localhost")
			for range 100 {
				require.NoError(t, watch(conn))
			}
		}
		assert.Equal(t, codes.ResourceExhausted, grpcstatus.Code(watch(b.dial(t, "localhost"))))
		elsewhere, err := grpc.NewClient("passthrough:///"+b.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(ctx, "tcp", address)
			}))
		require.NoError(t, err)
		defer elsewhere.Close()
		assert.NoError(t, watch(elsewhere))
		response, _ := get(t, http.DefaultClient, "http://"+b.http+"/health")
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode, "HTTP has a limit of its own")
	})
}

func TestCheckHealthPath(t *testing.T) {
	for _, path := range []string{"/health", "/internal/health.json", "/a/..b"} {
		assert.NoError(t, CheckHealthPath(path), path)
	}
	for _, path := range []string{"", "/", "health", "/health/", "//health", "/a/../health", "/./a", "/h?x", "/h h", `/h"`, "/$h", "/.lb", "/.lb/x", "/(health)"} {
		assert.Error(t, CheckHealthPath(path), path)
	}
}
