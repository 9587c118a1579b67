package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/admin"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/instances"
	"lbctl/internal/requestlog"
)

// requestsOf is the log of requests of a daemon with these events and services.
func requestsOf(t *testing.T, events func() []history.Event, entries []endpoints.Entry) *requestlog.Log {
	t.Helper()
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	var services []endpoints.Service
	for _, e := range entries {
		services = append(services, e.Service)
	}
	table.Observe(now, services)
	log := requestlog.New(requestlog.Options{Index: instances.New(table, func(string) []string { return nil }), Events: events})
	for n := range sampleRequests {
		log.Take(&sampleRequests[n])
	}
	return log
}

// request is one of the last requests.
func request(ago time.Duration, took time.Duration, service, request string, status, grpcStatus int, tries ...accesslog.Try) accesslog.Record {
	method, path, _ := strings.Cut(request, " ")
	return accesslog.Record{
		Time: before(ago), Took: took, Service: []byte(service), Route: []byte("example.com/api"), Method: []byte(method), Host: []byte("example.com"), Path: []byte(path),
		Status: status, GRPCStatus: grpcStatus, Completed: true, RequestBytes: 120, ResponseBytes: 4711,
		Client: []byte("192.0.2.7"), RequestID: []byte("b9c0e1d2f3a4b5c6d7e8f90a1b2c3d4e"), Tries: tries,
	}
}

func answered(address string, status int, took time.Duration) accesslog.Try {
	return accesslog.Try{Address: []byte(address), Status: status, Connect: time.Millisecond, Header: took, Took: took}
}

func refused(address string) accesslog.Try {
	return accesslog.Try{Address: []byte(address), Status: 502, Connect: -1, Header: -1, Took: 2 * time.Millisecond}
}

const ms = time.Millisecond

var sampleRequests = []accesslog.Record{
	request(90*time.Second, 3*ms, "shop", "GET /api/items", 200, -1, answered("10.0.0.11:7777", 200, 3*ms)),
	request(50*time.Second, 12*ms, "users", "POST /users/4711/a-rather-long-path/with/many/parts-that-do-not-fit", 200, -1,
		refused("10.0.0.11:7777"), answered("10.0.0.12:7777", 503, ms), answered("10.0.0.13:7777", 200, 12*ms)),
	request(40*time.Second, 1240*ms, "hello_server", "POST /protos.Ping/SayHello", 200, 0, answered("10.0.0.11:7777", 200, 1240*ms)),
	request(30*time.Second, 61*time.Second, "hello_server", "POST /protos.Ping/SayHello", 200, 14, answered("10.0.0.12:7777", 200, 61*time.Second)),
	func() accesslog.Record {
		r := request(20*time.Second, 0, "", "GET /\x1b]52;c;aGk=\a\u202e", 404, -1)
		r.OwnError, r.Route = 404, nil
		return r
	}(),
	func() accesslog.Record {
		r := request(10*time.Second, 5*ms, "shop", "GET /api/down", 502, -1, refused("10.0.0.11:7777"))
		r.OwnError = 502
		r.Trace = []byte("4bf92f3577b34da6a3ce929d0e0e4736 - d7e8f90a1b2c3d4e 1")
		return r
	}(),
	func() accesslog.Record {
		r := request(5*time.Second, 2*time.Second, "hello_server", "POST /protos.Ping/Stream", 499, -1, answered("10.0.0.11:7777", 0, -1))
		r.Completed = false
		return r
	}(),
}

func TestLogs(t *testing.T) {
	runDir := newFakeDaemon().start(t)
	environ := []string{"LBCTL_RUN_DIR=" + runDir}
	for _, width := range []int{0, 80, 120, 160} {
		terminal := Terminal{Width: width, Height: 24}
		got := command(t.Context(), terminal, environ, "logs")
		golden(t, fmt.Sprintf("logs-%d", width), "lbctl logs", got)
		for line := range strings.Lines(got.out) {
			if width > 0 {
				assert.LessOrEqual(t, len([]rune(strings.TrimSuffix(line, "\n"))), width, "%q", line)
			}
			assert.NotContains(t, line, "\x1b")
		}
	}
	colour := command(t.Context(), Terminal{Width: 80, Height: 24, Colour: true}, environ, "logs", "--limit", "1")
	assert.Contains(t, colour.out, "\x1b[33m499")

	for args, want := range map[string]int{
		"": 13, "--limit 3": 3, "--requests": 7, "--events": 6, "--status 5xx": 1, "--grpc-status error": 1, "--slower-than 1s": 3,
		"--service shop": 2, "--instance users-1": 1, "--route example.com/api --since 60s": 5, "--trace 4bf92f": 1, "--request-id b9c0": 7, "--client 192.0.2.0/24": 7,
		"--since 60s": 7, "--since 2026-11-20T09:00:00Z": 0,
	} {
		got := command(t.Context(), Terminal{}, environ, append([]string{"logs", "-o", "json"}, strings.Fields(args)...)...)
		require.Equal(t, exitOK, got.code, got.err)
		if want > 0 || args == "--client 198.51.100.1" {
			assert.Equal(t, want, strings.Count(got.out, "\n"), "%s: %s", args, got.out)
		}
	}
	for args, want := range map[string]string{
		"--status 6xx": "want HTTP statuses such as 404", "--grpc-status nonsense": "want names of gRPC statuses", "--client x": "want an address or a network",
		"--since yesterday": "want a duration such as 10m, or a time", "--requests --events": "want only one of them", "--limit 100001": "want a whole number from 0 to 100000",
	} {
		got := command(t.Context(), Terminal{}, environ, append([]string{"logs"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, got.code)
		assert.Contains(t, got.err, want)
	}
	help := command(t.Context(), Terminal{}, environ, "logs", "--help")
	assert.NotContains(t, help.out, "invalid Prefix", "it has no default")
	assert.NotContains(t, help.out, "0001-01-01", "it has no default")
}

// TestLogsOverTCP shows what the read-only address says.
func TestLogsOverTCP(t *testing.T) {
	listener, err := admin.ListenTCP("127.0.0.1:0")
	require.NoError(t, err)
	serveOn(t, newFakeDaemon(), listener)
	for _, args := range [][]string{{"logs"}, {"logs", "-f"}} {
		got := command(t.Context(), Terminal{}, nil, append(args, "--addr", listener.Addr().String())...)
		assert.Equal(t, exitFailure, got.code)
		assert.Contains(t, got.err, "docker-compose exec load-balancer lbctl logs")
		assert.Empty(t, got.out)
	}
}

func TestLogsCompletions(t *testing.T) {
	environ := []string{"LBCTL_RUN_DIR=" + newFakeDaemon().start(t)}
	for flag, want := range map[string]string{
		"--service": "hello_server\t", "--instance": "shop-1\tshop at 10.0.0.11:7777 on node-1", "--route": "example.com/api\tshop", "--status": "5xx", "--grpc-status": "UNAVAILABLE", "--output": "json",
	} {
		got := command(t.Context(), Terminal{}, environ, "__complete", "logs", flag, "")
		assert.Contains(t, got.out, want, flag)
	}
	got := command(t.Context(), Terminal{}, environ, "__complete", "logs", "--service", "users", "--instance", "")
	assert.Contains(t, got.out, "users-1")
	assert.NotContains(t, got.out, "shop-1")
	got = command(t.Context(), Terminal{}, environ, "__complete", "logs", "--grpc-status", "OK,")
	assert.Contains(t, got.out, "OK,error")
}

// TestTheNoteAboutMissingRequests goes to the standard error once.
func TestTheNoteAboutMissingRequests(t *testing.T) {
	log := requestlog.New(requestlog.Options{Note: "there are no requests: nginx has no access log"})
	got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + serveHandler(t, log)}, "logs")
	assert.Equal(t, result{"", "lbctl: there are no requests: nginx has no access log\n", exitOK}, got)
}

// serveHandler serves a handler in the place of a daemon.
func serveHandler(t *testing.T, handler http.Handler) string {
	t.Helper()
	runDir := shortDir(t)
	listener, err := admin.ListenUnix(runDir + "/admin.sock")
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return runDir
}

// TestFollowEndsWithTheUser follows until the context of the command ends.
func TestFollowEndsWithTheUser(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log := requestlog.New(requestlog.Options{})
	answering := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.AfterFunc(50*time.Millisecond, cancel)
		log.ServeHTTP(w, r)
	})
	got := command(ctx, Terminal{}, []string{"LBCTL_RUN_DIR=" + serveHandler(t, answering)}, "logs", "-f")
	assert.Equal(t, result{code: exitOK}, got)

	got = command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + shortDir(t)}, "logs", "-f")
	assert.Equal(t, exitUnreachable, got.code)
}
