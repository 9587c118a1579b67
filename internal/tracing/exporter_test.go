package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lbctl/internal/accesslog"
	"lbctl/internal/otlptest"
	"lbctl/internal/testlog"
)

func toText(v any) string { return fmt.Sprint(v) }

// start runs an exporter until the test ends, or until the returned function is called.
func start(t *testing.T, endpoint string, change ...func(*Exporter)) (e *Exporter, stop func(), log *testlog.Buffer) {
	t.Helper()
	log = &testlog.Buffer{}
	e, err := New(t.Context(), Options{
		Endpoint: endpoint, Version: "v1.2.3", Instances: known{}, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	require.NoError(t, err)
	e.interval, e.patience = 10*time.Millisecond, time.Minute
	for _, change := range change {
		change(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		assert.ErrorIs(t, e.Run(ctx), context.Canceled)
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return e, stop, log
}

func answered() *accesslog.Record { return request(try("10.0.0.1:80", 200, 50*time.Millisecond)) }

func atLeast(n int) func([]otlptest.Span) bool {
	return func(spans []otlptest.Span) bool { return len(spans) >= n }
}

func TestSpansReachTheReceiver(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "edge")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			receiver := otlptest.Start(t)
			endpoint := receiver.URL
			if protocol == "http/protobuf" {
				endpoint = receiver.HTTPURL
			}
			e, stop, log := start(t, endpoint)
			unsampled := answered()
			unsampled.Trace = []byte(traceID + " - " + spanID + " 0")
			own := answered()
			own.Client = []byte("unix:")
			health := answered()
			health.Service, health.Route = nil, []byte("health")
			for _, r := range []*accesslog.Record{unsampled, own, health, {}, answered()} {
				e.Take(r)
			}
			spans := receiver.Wait(t, atLeast(2))
			assert.Equal(t, "edge: GET /api SERVER\n  edge: GET /api CLIENT\n", otlptest.Tree(spans))
			about := spans[0].Resource
			assert.Equal(t, []any{"edge", "v1.2.3", "test", "opentelemetry", "go"},
				[]any{about["service.name"], about["service.version"], about["deployment.environment.name"], about["telemetry.sdk.name"], about["telemetry.sdk.language"]})
			assert.Contains(t, about, "host.name")
			assert.Equal(t, []string{"shop"}, receiver.Headers().Get("x-tenant"))
			stop()
			exported, dropped := e.Counts()
			assert.Equal(t, []uint64{2, 0}, []uint64{exported, dropped})
			assert.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		})
	}
}

func TestTheLastSpansAreSent(t *testing.T) {
	t.Parallel()
	receiver := otlptest.Start(t)
	e, stop, _ := start(t, receiver.URL)
	for range 3 {
		e.Take(answered())
	}
	stop()
	assert.Equal(t, 6, len(receiver.Spans()))
}

func TestARecordsMemoryMayBeUsedAgain(t *testing.T) {
	t.Parallel()
	receiver := otlptest.Start(t)
	e, stop, _ := start(t, receiver.URL)
	r := answered()
	for n := range 2000 {
		path := fmt.Appendf(r.Path[:0], "/item/%d", n)
		r.Path, r.Tries[0].Address = path, fmt.Appendf(r.Tries[0].Address[:0], "10.0.0.1:%d", n+1)
		e.Take(r)
	}
	stop()
	spans := receiver.Spans()
	require.Equal(t, 4000, len(spans))
	for n := range 2000 {
		assert.Equal(t, fmt.Sprintf("/item/%d", n), otlptest.Values(spans[2*n].Attributes)["url.path"])
		assert.Equal(t, int64(n+1), otlptest.Values(spans[2*n+1].Attributes)["server.port"])
	}
}

// TestAReceiverThatIsAway checks that spans are dropped and counted, that the log says so once,
// and once that they are sent again.
func TestAReceiverThatIsAway(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200") // milliseconds
	var mu sync.Mutex
	away := true
	receiver := otlptest.StartWith(t, func(*collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return nil, status.Error(codes.Unavailable, "down for\nmaintenance")
		}
		return &collectorpb.ExportTraceServiceResponse{}, nil
	})
	e, stop, log := start(t, receiver.URL)
	lost := func(n uint64) func() bool {
		return func() bool { _, dropped := e.Counts(); return dropped >= n }
	}
	e.Take(answered())
	require.Eventually(t, lost(2), 20*time.Second, 10*time.Millisecond)
	e.Take(answered())
	require.Eventually(t, lost(4), 20*time.Second, 10*time.Millisecond)
	mu.Lock()
	away = false
	mu.Unlock()
	e.Take(answered())
	require.Eventually(t, func() bool { exported, _ := e.Counts(); return exported == 2 }, 20*time.Second, 10*time.Millisecond)
	stop()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	require.Len(t, lines, 3, log.String())
	assert.Contains(t, lines[1], "level=WARN")
	assert.Contains(t, lines[1], receiver.URL)
	assert.Contains(t, lines[2], "traces are sent again")
	assert.Contains(t, lines[2], "dropped_spans=4")
}

// TestASlowReceiver checks that records wait in bounded memory, and never hold back who takes them.
func TestASlowReceiver(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	require.NoError(t, err)
	defer listener.Close()
	e, stop, log := start(t, "http://"+listener.Addr().String(), func(e *Exporter) { e.patience = 100 * time.Millisecond })
	const requests = 5 * maxWaiting
	for range requests {
		e.Take(answered())
	}
	_, dropped := e.Counts()
	assert.GreaterOrEqual(t, dropped, uint64(2*(requests-2*maxWaiting)), "one batch is being sent, one waits")
	assert.Less(t, dropped, uint64(2*requests))
	assert.LessOrEqual(t, cap(e.queue.waiting), 2*maxWaiting)
	stop()
	assert.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
	_, dropped = e.Counts()
	assert.Equal(t, uint64(2*requests), dropped)
}

// TestAReceiverThatIsTooSlow checks that the log says what is dropped although all is taken that is
// sent.
func TestAReceiverThatIsTooSlow(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	receiver := otlptest.StartWith(t, func(*collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
		<-goOn
		return &collectorpb.ExportTraceServiceResponse{}, nil
	})
	e, stop, log := start(t, receiver.URL)
	for range 3 * maxWaiting {
		e.Take(answered())
	}
	close(goOn)
	_, dropped := e.Counts()
	require.NotZero(t, dropped)
	require.Eventually(t, func() bool { exported, _ := e.Counts(); return exported+dropped == 2*3*maxWaiting }, 20*time.Second, 10*time.Millisecond)
	stop()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	require.Len(t, lines, 3, log.String())
	assert.Contains(t, lines[1], "they come faster than the receiver takes them")
	assert.Contains(t, lines[2], "traces are sent again")
}

func TestAReceiverThatRejectsSome(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			receiver := otlptest.StartWith(t, func(*collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
				return &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: "too old"}}, nil
			})
			endpoint := receiver.URL
			if protocol == "http/protobuf" {
				endpoint = receiver.HTTPURL
			}
			e, stop, log := start(t, endpoint)
			e.Take(answered())
			stop()
			exported, dropped := e.Counts()
			assert.Equal(t, []uint64{1, 1}, []uint64{exported, dropped})
			assert.Contains(t, log.String(), "too old")
		})
	}
}

func TestAnUnknownProtocol(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke-signals")
	_, err := New(t.Context(), Options{Logger: slog.New(slog.DiscardHandler)})
	assert.EqualError(t, err, `OTEL_EXPORTER_OTLP_PROTOCOL is "smoke-signals", want "grpc" or "http/protobuf"`)
}

func TestTheUsualEndpoint(t *testing.T) {
	for _, c := range []struct{ protocol, variable, want string }{
		{"", "", "http://localhost:4317"},
		{"http/protobuf", "", "http://localhost:4318"},
		{"", "https://user:secret@otlp.example.com", "https://user:xxxxx@otlp.example.com"},
	} {
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", c.protocol)
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.variable)
		e, err := New(t.Context(), Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		assert.Equal(t, c.want, e.client.endpoint)
	}
}

func TestCheckEndpoint(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"http://localhost:4317", "https://otlp.example.com", "http://[::1]:4317", "https://otlp.example.com/tenant"} {
		assert.NoError(t, CheckEndpoint(good))
	}
	for _, bad := range []string{"", "localhost:4317", "grpc://localhost:4317", "http://", "http://user:secret@localhost:4317", "http://localhost:4317/?a=b", "::"} {
		assert.Error(t, CheckEndpoint(bad), bad)
	}
}

func TestEndpointFromEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		environment map[string]string
		want        string
	}{
		{nil, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, "http://a:1"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:1"}, "http://b:1"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_SDK_DISABLED": "True"}, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_TRACES_EXPORTER": "none"}, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_TRACES_EXPORTER": "otlp"}, "http://a:1"},
	} {
		lookup := func(name string) (string, bool) { v, ok := c.environment[name]; return v, ok }
		assert.Equal(t, c.want, EndpointFromEnvironment(lookup), "%v", c.environment)
	}
}

func BenchmarkTakeUnsampled(b *testing.B) {
	e := &Exporter{}
	r := answered()
	r.Trace = []byte(traceID + " " + parentID + " " + spanID + " 0")
	b.ReportAllocs()
	for b.Loop() {
		e.Take(r)
	}
}

func BenchmarkTake(b *testing.B) {
	e := &Exporter{queue: queue{full: make(chan struct{}, 1)}}
	r := answered()
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%maxWaiting == 0 {
			e.queue.take()
		}
		e.Take(r)
	}
}

func BenchmarkSpans(b *testing.B) {
	e := &Exporter{opts: Options{Instances: known{}}}
	r := answered()
	b.ReportAllocs()
	for b.Loop() {
		e.appendSpans(nil, r)
	}
}
