package demoserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"lbctl/protos"
)

const patience = 20 * time.Second // bounds every wait, and is much longer than any takes

// process is a grpc_server that runs in the test, on a free port.
type process struct {
	t    *testing.T
	stop context.CancelFunc // has the effect of SIGTERM
	code chan int
	addr string

	mu     sync.Mutex
	logs   []map[string]any
	logged chan struct{} // closed and replaced with every log line
}

// start runs grpc_server with args and waits until it serves.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, stop: cancel, code: make(chan int, 1), logged: make(chan struct{})}
	r, w := io.Pipe()
	args = append([]string{"-listen=127.0.0.1:0", "-name=blue", "-log-format=json", "-log-level=debug"}, args...)
	go func() {
		code := Main(ctx, args, noEnvironment, io.Discard, w)
		_ = w.Close()
		p.code <- code
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			var line map[string]any
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Errorf("log line %q: %v", lines.Text(), err)
				continue
			}
			p.mu.Lock()
			p.logs = append(p.logs, line)
			close(p.logged)
			p.logged = make(chan struct{})
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-read })
	p.addr, _ = p.line("serving")["address"].(string)
	return p
}

// line waits for the first log line with the message and the pairs of key and value.
func (p *process) line(message string, pairs ...any) map[string]any {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		logs, logged := p.logs, p.logged
		p.mu.Unlock()
		for _, line := range logs {
			matches := line["msg"] == message
			for i := 0; i < len(pairs); i += 2 {
				matches = matches && line[pairs[i].(string)] == pairs[i+1]
			}
			if matches {
				return line
			}
		}
		select {
		case <-logged:
		case <-deadline:
			require.FailNowf(p.t, "no such log line", "message %q with %v in %v", message, pairs, logs)
		}
	}
}

func (p *process) exit() int {
	p.t.Helper()
	select {
	case code := <-p.code:
		return code
	case <-time.After(patience):
		require.FailNow(p.t, "grpc_server did not exit")
		return -1
	}
}

func (p *process) dial() *grpc.ClientConn {
	p.t.Helper()
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func noEnvironment(string) (string, bool) { return "", false }

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func exchange(t *testing.T, stream protos.Ping_StreamClient) string {
	t.Helper()
	require.NoError(t, stream.Send(&protos.PingMessage{Greeting: "hello"}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	return answer.GetGreeting()
}

func TestSayHello(t *testing.T) {
	p := start(t)
	ctx := metadata.AppendToOutgoingContext(bounded(t), "x-forwarded-for", "192.0.2.7")

	answer, err := protos.NewPingClient(p.dial()).SayHello(ctx, &protos.PingMessage{Greeting: "hello"})

	require.NoError(t, err)
	assert.Equal(t, "Hello from blue.", answer.GetGreeting())
	line := p.line("call")
	assert.Equal(t, "/protos.Ping/SayHello", line["method"])
	assert.Equal(t, "OK", line["code"])
	assert.Equal(t, "INFO", line["level"])
	assert.Equal(t, "192.0.2.7", line["forwarded_for"])
	assert.Positive(t, line["took"])
	host, _, err := net.SplitHostPort(line["peer"].(string))
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1", host)
	assert.NotContains(t, line, "error")
}

func TestStream(t *testing.T) {
	p := start(t)
	stream, err := protos.NewPingClient(p.dial()).Stream(bounded(t))
	require.NoError(t, err)
	for range 3 {
		assert.Equal(t, "Hello from blue.", exchange(t, stream))
	}
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	assert.ErrorIs(t, err, io.EOF)

	line := p.line("call")
	assert.Equal(t, "/protos.Ping/Stream", line["method"])
	assert.Equal(t, "OK", line["code"])
	assert.EqualValues(t, 3, line["received"])
	assert.EqualValues(t, 3, line["sent"])
}

func TestDelay(t *testing.T) {
	t.Run("an answer comes after the delay", func(t *testing.T) {
		p := start(t, "-delay=50ms")
		begun := time.Now()
		_, err := protos.NewPingClient(p.dial()).SayHello(bounded(t), &protos.PingMessage{})
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(begun), 50*time.Millisecond)
	})
	t.Run("the server does not wait for a caller that cancels", func(t *testing.T) {
		p := start(t, "-delay=1h")
		ctx, cancel := context.WithTimeout(bounded(t), 100*time.Millisecond)
		defer cancel()
		_, err := protos.NewPingClient(p.dial()).SayHello(ctx, &protos.PingMessage{})
		assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
		line := p.line("call")
		// The server's deadline or the client's cancellation may come first.
		assert.Contains(t, []any{"DEADLINE_EXCEEDED", "CANCELLED"}, line["code"])
		assert.NotEmpty(t, line["error"])
	})
}

func TestUnknownMethodIsLogged(t *testing.T) {
	p := start(t)
	err := p.dial().Invoke(bounded(t), "/other.Service/Do", &protos.PingMessage{}, &protos.PingMessage{})
	assert.Equal(t, codes.Unimplemented, status.Code(err))
	assert.ErrorContains(t, err, "/other.Service/Do")
	assert.Equal(t, "/other.Service/Do", p.line("call", "code", "UNIMPLEMENTED")["method"])
}

func TestReflection(t *testing.T) {
	p := start(t)
	stream, err := reflectionpb.NewServerReflectionClient(p.dial()).ServerReflectionInfo(bounded(t))
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	var services []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	assert.Subset(t, services, []string{"grpc.health.v1.Health", "protos.Ping"})
}

func TestHealth(t *testing.T) {
	p := start(t)
	health := healthpb.NewHealthClient(p.dial())
	for _, service := range []string{"", "protos.Ping"} {
		answer, err := health.Check(bounded(t), &healthpb.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		assert.Equal(t, healthpb.HealthCheckResponse_SERVING, answer.GetStatus(), "service %q", service)
	}
	_, err := health.Check(bounded(t), &healthpb.HealthCheckRequest{Service: "other"})
	assert.Equal(t, codes.NotFound, status.Code(err))
	assert.Equal(t, "DEBUG", p.line("call")["level"], "health checks are logged at debug")
}

func TestStopNotifiesWatchersWithoutWaiting(t *testing.T) {
	for _, service := range []string{"", "protos.Ping", "other"} {
		t.Run("watching "+service, func(t *testing.T) {
			p := start(t, "-drain=1h")
			watch, err := healthpb.NewHealthClient(p.dial()).Watch(bounded(t), &healthpb.HealthCheckRequest{Service: service})
			require.NoError(t, err)
			first, err := watch.Recv()
			require.NoError(t, err)
			if service == "other" {
				assert.Equal(t, healthpb.HealthCheckResponse_SERVICE_UNKNOWN, first.GetStatus())
			} else {
				assert.Equal(t, healthpb.HealthCheckResponse_SERVING, first.GetStatus())
			}

			p.stop()
			if service != "other" {
				second, err := watch.Recv()
				require.NoError(t, err)
				assert.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, second.GetStatus())
			}
			_, err = watch.Recv()
			assert.Equal(t, codes.Unavailable, status.Code(err))
			assert.Equal(t, exitStopped, p.exit())
		})
	}
}

func TestNoticeIsGivenBeforeCallsAreRefused(t *testing.T) {
	p := start(t, "-notice=1s")
	conn := p.dial()
	watch, err := healthpb.NewHealthClient(conn).Watch(bounded(t), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)

	p.stop()
	second, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, second.GetStatus())
	_, err = protos.NewPingClient(conn).SayHello(bounded(t), &protos.PingMessage{})
	assert.NoError(t, err, "a call during the notice")

	assert.Equal(t, exitStopped, p.exit())
	_, err = protos.NewPingClient(p.dial()).SayHello(bounded(t), &protos.PingMessage{})
	assert.Equal(t, codes.Unavailable, status.Code(err), "a call after the stop")
}

func TestCallInFlightIsAnsweredDuringStop(t *testing.T) {
	p := start(t, "-delay=500ms")
	stream, err := protos.NewPingClient(p.dial()).Stream(bounded(t))
	require.NoError(t, err)
	exchange(t, stream)
	require.NoError(t, stream.Send(&protos.PingMessage{}))

	p.stop()
	p.line("stopping", "in_flight", 1.0)
	answer, err := stream.Recv()
	require.NoError(t, err)
	assert.Equal(t, "Hello from blue.", answer.GetGreeting())
	assert.Equal(t, "Hello from blue.", exchange(t, stream), "a stream goes on while the server drains")
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	assert.ErrorIs(t, err, io.EOF)
	assert.Equal(t, exitStopped, p.exit())
}

func TestStreamIsCutOffAfterDrain(t *testing.T) {
	p := start(t, "-drain=300ms")
	stream, err := protos.NewPingClient(p.dial()).Stream(bounded(t))
	require.NoError(t, err)
	exchange(t, stream)

	stopped := time.Now()
	p.stop()
	_, err = stream.Recv()
	assert.Equal(t, codes.Unavailable, status.Code(err))
	assert.GreaterOrEqual(t, time.Since(stopped), 300*time.Millisecond)
	assert.Equal(t, exitCutOff, p.exit())
	p.line("calls cut off", "calls", 1.0)
	assert.Equal(t, "/protos.Ping/Stream", p.line("call")["method"], "a cut off stream is in the log")
}

func TestRunFailsOnATakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	var stderr bytes.Buffer
	code := Main(context.Background(), []string{"-listen", taken.Addr().String()}, noEnvironment, io.Discard, &stderr)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr.String(), "-listen")
	assert.Contains(t, stderr.String(), "address already in use")
}

func TestServeFailsWhenItsListenerDoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	cfg, err := parse([]string{"-log-level=error"}, noEnvironment)
	require.NoError(t, err)
	err = serve(bounded(t), l, nil, cfg, slog.New(slog.DiscardHandler))
	assert.ErrorContains(t, err, "serve on "+l.Addr().String())
}

func TestUsage(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitUsage, Main(context.Background(), []string{"-drain=-1s", "-log-format=xml"}, noEnvironment, &stdout, &stderr))
	assert.Empty(t, stdout.String())
	assert.Contains(t, stderr.String(), "-drain")
	assert.Contains(t, stderr.String(), "-log-format")
	assert.Equal(t, 1, strings.Count(stderr.String(), "grpc_server -h"))

	stderr.Reset()
	assert.Equal(t, exitStopped, Main(context.Background(), []string{"-h"}, noEnvironment, &stdout, &stderr))
	assert.Equal(t, help, stdout.String())
	assert.Empty(t, stderr.String())
}
