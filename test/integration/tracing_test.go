package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/democlient"
	"lbctl/internal/demoserver"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/otlptest"
)

// TestOneTraceFromClientToServer makes calls with the demo's client, over a balancer, to the demo's
// server and to an instance that can't be reached, and fetches the trace of a call with a retry back
// from the receiver of OpenTelemetry's Collector.
func TestOneTraceFromClientToServer(t *testing.T) {
	receiver := otlptest.StartReal(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100") // milliseconds that the demo's server waits for other spans
	for _, c := range []struct {
		protocol, endpoint string
		nginx              []nginxtest.Binary
	}{
		{"grpc", receiver.URL, nginxtest.Binaries(t)},
		{"http/protobuf", receiver.HTTPURL, []nginxtest.Binary{newest(t)}},
	} {
		for _, binary := range c.nginx {
			t.Run(c.protocol+" nginx "+binary.Version, func(t *testing.T) {
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.endpoint) // also of lbctl, which turns tracing on
				t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", c.protocol)
				s := alone(t, binary, "--probe", "off", "--trace-sample", "0")
				gone := nginxtest.FreePort(t)
				s.place(t, "gone", gone)
				s.place(t, "here", demoServer(t))
				s.WaitServing(hello, 2)

				// The instances take turns, so one of some calls tries the one that is gone first.
				var spans []otlptest.Span
				for range 4 {
					id := s.call(t)
					spans = otlptest.Of(receiver.Wait(t, func(all []otlptest.Span) bool {
						return strings.Contains(otlptest.Tree(otlptest.Of(all, id)), "grpc_server") && strings.Contains(otlptest.Tree(otlptest.Of(all, id)), "lbctl")
					}), id)
					if len(spans) == 5 {
						break
					}
				}
				const method = "protos.Ping/SayHello"
				require.Equal(t, fmt.Sprintf(`grpc_client: %[1]s CLIENT
  lbctl: %[1]s SERVER
    lbctl: %[1]s CLIENT !
    lbctl: %[1]s CLIENT
      grpc_server: %[1]s SERVER
`, method), otlptest.Tree(spans))

				var client, request, first, last, server otlptest.Span
				for _, span := range spans {
					try := otlptest.Values(span.Attributes)["lbctl.try"]
					switch {
					case span.Service() == "grpc_client":
						client = span
					case span.Service() == "grpc_server":
						server = span
					case try == int64(1):
						first = span
					case try == int64(2):
						last = span
					default:
						request = span
					}
				}
				assert.Subset(t, otlptest.Values(request.Attributes), map[string]any{
					"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": "OK", "lbctl.service": hello, "client.address": "127.0.0.1",
				})
				assert.Subset(t, otlptest.Values(first.Attributes), map[string]any{
					"rpc.method": method, "server.address": "127.0.0.1", "server.port": int64(gone), "lbctl.instance": "gone", "error.type": "connect",
				})
				assert.Subset(t, otlptest.Values(last.Attributes), map[string]any{
					"rpc.method": method, "rpc.response.status_code": "OK", "lbctl.instance": "here", "service.peer.name": hello,
				})
				// nginx's times are milliseconds.
				const slack = uint64(2 * time.Millisecond)
				assert.LessOrEqual(t, client.StartTimeUnixNano, request.StartTimeUnixNano+slack)
				assert.LessOrEqual(t, request.EndTimeUnixNano, client.EndTimeUnixNano+slack)
				assert.LessOrEqual(t, request.StartTimeUnixNano, first.StartTimeUnixNano)
				assert.LessOrEqual(t, first.EndTimeUnixNano, last.StartTimeUnixNano+uint64(time.Microsecond))
				assert.LessOrEqual(t, last.EndTimeUnixNano, request.EndTimeUnixNano)
				assert.LessOrEqual(t, last.StartTimeUnixNano, server.StartTimeUnixNano+slack)
				assert.LessOrEqual(t, server.EndTimeUnixNano, last.EndTimeUnixNano+slack)
			})
		}
	}
}

// place registers an instance that is passing.
func (s *system) place(t *testing.T, id string, port int) {
	t.Helper()
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: hello, Address: "127.0.0.1", Port: port, Tags: []string{"grpc_server"},
	}))
}

// demoServer runs the demo's server until the test ends.
func demoServer(t *testing.T) (port int) {
	t.Helper()
	port = nginxtest.FreePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int)
	go func() {
		ended <- demoserver.Main(ctx, []string{"-listen", fmt.Sprintf("127.0.0.1:%d", port), "-name", "blue"}, os.LookupEnv, io.Discard, io.Discard)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return port
}

// call calls the service with the demo's client, and returns the id of the trace.
func (s *system) call(t *testing.T) (trace string) {
	t.Helper()
	var out, events bytes.Buffer
	require.Zero(t, democlient.Main(t.Context(), []string{"-addr", s.GRPC, "-trace"}, &out, &events), events.String())
	words := strings.Fields(events.String())
	require.GreaterOrEqual(t, len(words), 2, events.String())
	return words[1]
}

// TestTracesOverRestarts checks that requests have traces while lbctl is away, whose spans it sends
// when it is back, and that a restart can turn traces off.
func TestTracesOverRestarts(t *testing.T) {
	t.Parallel() // it mostly waits
	receiver := otlptest.Start(t)
	s := alone(t, newest(t), "--trace-sample", "1", "--otlp-endpoint", receiver.URL)
	s.backends(t, 1, 1)
	s.StopLbctl()
	response, err := http.Get("http://" + s.HTTP + "/nothing")
	require.NoError(t, err)
	response.Body.Close()
	parent := response.Header.Get("traceparent")
	require.NotEmpty(t, parent, "nginx goes on without lbctl")
	s.StartLbctl()
	id := strings.Split(parent, "-")[1]
	spans := otlptest.Of(receiver.Wait(t, func(spans []otlptest.Span) bool { return len(otlptest.Of(spans, id)) == 1 }), id)
	assert.Equal(t, "lbctl: GET SERVER\n", otlptest.Tree(spans))
	assert.Equal(t, strings.Split(parent, "-")[2], spans[0].ID())

	s.WaitMetric(1, "lbctl_traces_spans_exported_total")
	s.WaitMetric(0, "lbctl_traces_spans_dropped_total")

	s.StopLbctl()
	s.StartLbctl("--tracing", "off")
	lbtest.Eventually(t, "traces are off", func() error {
		response, err := http.Get("http://" + s.HTTP + "/nothing")
		if err != nil {
			return err
		}
		response.Body.Close()
		if parent := response.Header.Get("traceparent"); parent != "" {
			return fmt.Errorf("traceparent: %s", parent)
		}
		return nil
	})
}
