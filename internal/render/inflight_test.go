package render

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// waitInFlight waits until the reader says that so many requests have begun and not ended.
func waitInFlight(t *testing.T, reader *accesslog.Reader, want map[string]int64) {
	t.Helper()
	var all map[string]int64
	if !assert.Eventually(t, func() bool {
		all = reader.InFlight()
		return maps.Equal(want, all)
	}, 20*time.Second, 20*time.Millisecond) {
		assert.Equal(t, want, all)
	}
}

// noneInFlight waits until each request that has begun has ended.
func noneInFlight(t *testing.T, reader *accesslog.Reader) {
	t.Helper()
	waitInFlight(t, reader, map[string]int64{})
}

// held is an HTTP server that answers at once, or at /hold when release is closed.
func held(t *testing.T, release chan struct{}) int {
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold", "/strict/hold":
			io.Copy(io.Discard, r.Body)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case "/socket":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
			<-release
		}
	})
}

// TestRequestsInFlight has requests of all kinds that take long.
func TestRequestsInFlight(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		release := make(chan struct{})
		letGo := sync.OnceFunc(func() { close(release) })
		t.Cleanup(letGo)
		web, calls := held(t, release), moody(t, make(chan struct{}, 100))
		dir := nginxtest.MemoryDir(t)
		log := startLog(t, dir, nil)
		b := startBalancerWith(t, binary, func(s *Settings) {
			s.AccessLogDir, s.LogRequests, s.InFlight, s.Workers = dir, true, true, 2
		}, nil,
			one("web", web, tags("http_server")),
			one("copied", web, meta("lb-protocol", "http", "lb-host", "copied.test", "lb-mirror-service", "copies")),
			one("copies", web, meta("lb-protocol", "http", "lb-host", "copies.test")),
			one("strict", web, meta("lb-protocol", "http", "lb-path", "/strict", "lb-limit-body", "1k", "lb-retry-tries", "2")),
			one("closed", web, meta("lb-protocol", "http", "lb-path", "/closed", "lb-maintenance-enabled", "on")),
			one("calls", calls, tags("grpc_server")),
			one("free", web, meta("lb-protocol", "http", "lb-path", "/free")),
		)
		var done sync.WaitGroup
		begin := func(host, path string, body io.Reader) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+b.http+path, body)
			require.NoError(t, err)
			request.Host = host
			done.Go(func() {
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				response, err := client.Do(request)
				if assert.NoError(t, err) {
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			})
		}
		for range 3 {
			begin("web.test", "/hold", nil)
		}
		begin("copied.test", "/hold", nil)
		begin("web.test", "/strict/hold", nil)
		waitInFlight(t, log.reader, map[string]int64{"web": 3, "copied": 1, "strict": 1})

		// What is over, or goes to no instance, does not count.
		for _, path := range []string{"/", "/closed", "/free"} {
			get(t, http.DefaultClient, "http://"+b.http+path)
		}
		// The body of a request has not arrived yet.
		body, send := io.Pipe()
		begin("web.test", "/hold", body)
		_, err := send.Write([]byte("beginning"))
		require.NoError(t, err)
		// A WebSocket, and streams of gRPC.
		socket, err := net.Dial("tcp", b.http)
		require.NoError(t, err)
		fmt.Fprintf(socket, "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, err = io.ReadFull(socket, make([]byte, len("HTTP/1.1 101")))
		require.NoError(t, err)
		conn := b.dial(t, "localhost")
		ctx, cancel := context.WithCancel(t.Context())
		for range 4 {
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/m.M/HangLater")
			require.NoError(t, err)
			require.NoError(t, stream.SendMsg(&protos.PingMessage{}))
			require.NoError(t, stream.RecvMsg(&protos.PingMessage{}))
		}
		waitInFlight(t, log.reader, map[string]int64{"web": 5, "copied": 1, "strict": 1, "calls": 4})

		// The former workers keep theirs.
		old := b.process.Workers()
		b.process.Reload()
		require.Eventually(t, func() bool {
			return slices.ContainsFunc(b.process.Workers(), func(pid int) bool { return !slices.Contains(old, pid) })
		}, 20*time.Second, 10*time.Millisecond)
		begin("web.test", "/hold", nil)
		waitInFlight(t, log.reader, map[string]int64{"web": 6, "copied": 1, "strict": 1, "calls": 4})

		cancel()
		waitInFlight(t, log.reader, map[string]int64{"web": 6, "copied": 1, "strict": 1})
		require.NoError(t, send.Close())
		require.NoError(t, socket.Close())
		waitInFlight(t, log.reader, map[string]int64{"web": 5, "copied": 1, "strict": 1})
		letGo()
		done.Wait()
		noneInFlight(t, log.reader)
		errorLog, err := os.ReadFile(b.errorLog)
		require.NoError(t, err)
		assert.NotContains(t, string(errorLog), "exited on signal")
	})
}

// TestRequestsInFlightOfAKilledWorker kills workers, whose requests end without a line.
func TestRequestsInFlightOfAKilledWorker(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		release := make(chan struct{})
		web := held(t, release)
		dir := nginxtest.MemoryDir(t)
		log := startLog(t, dir, nil)
		b := startBalancerWith(t, binary, func(s *Settings) {
			s.AccessLogDir, s.LogRequests, s.InFlight, s.Workers = dir, true, true, 1
		}, nil, one("web", web, tags("http_server")))
		var done sync.WaitGroup
		hold := func() {
			for range 3 {
				done.Go(func() {
					client := &http.Client{Transport: &http.Transport{}}
					defer client.CloseIdleConnections()
					if response, err := client.Get("http://" + b.http + "/hold"); err == nil {
						response.Body.Close()
					}
				})
			}
			waitInFlight(t, log.reader, map[string]int64{"web": 3})
		}
		hold()
		for _, worker := range b.process.Workers() {
			require.NoError(t, syscall.Kill(worker, syscall.SIGKILL))
		}
		noneInFlight(t, log.reader)
		done.Wait()
		hold()
		close(release)
		noneInFlight(t, log.reader)
		done.Wait()
	})
}
