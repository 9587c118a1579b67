package democlient

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lbctl/internal/otlptest"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// says answers as a balancer does that has a trace for each call.
func says(ctx context.Context, _ int) (string, error) {
	_ = grpc.SetHeader(ctx, metadata.Pairs("traceparent", parent)) // a stream has headers once
	return "Hello from blue.", nil
}

func TestTheBalancersTraceIsPrinted(t *testing.T) {
	_, addr := serve(t, says)
	code, stdout, stderr := client(t, "-addr", addr, "-trace")
	assert.Equal(t, exitAnswered, code)
	assert.Equal(t, "Hello from blue.\n", stdout)
	assert.Regexp(t, `^trace 4bf92f3577b34da6a3ce929d0e0e4736  OK [0-9.]+m?s\n$`, stderr)

	code, _, stderr = client(t, "-addr", addr, "-trace", "-quiet", "-stream", "-n", "3", "-interval", "1ms")
	assert.Equal(t, exitAnswered, code)
	assert.Equal(t, "trace 4bf92f3577b34da6a3ce929d0e0e4736  OK\n", stderr, "a stream is one trace")

	_, addr = serve(t, func(context.Context, int) (string, error) { return "", status.Error(codes.NotFound, "who?") })
	_, _, stderr = client(t, "-addr", addr, "-trace", "-json")
	assert.Regexp(t, `^trace none  NOT_FOUND [0-9.]+m?s\n$`, stderr)
	_, _, stderr = client(t, "-addr", addr, "-trace", "-json", "-stream", "-n", "1")
	assert.Equal(t, "trace none  NOT_FOUND\n", stderr)
}

// TestSpansOfCalls checks that calls begin traces, which the server gets, if there is a receiver.
func TestSpansOfCalls(t *testing.T) {
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	var got []string
	_, addr := serve(t, func(ctx context.Context, n int) (string, error) {
		got = append(got, metadata.ValueFromIncomingContext(ctx, "traceparent")...)
		return says(ctx, n)
	})
	for _, args := range [][]string{{}, {"-stream", "-n", "1"}} {
		_, _, stderr := client(t, append([]string{"-addr", addr, "-trace"}, args...)...)
		id := regexp.MustCompile(`^trace ([0-9a-f]{32})  OK`).FindStringSubmatch(stderr)
		require.NotNil(t, id, stderr)
		spans := otlptest.Of(receiver.Spans(), id[1])
		require.Equal(t, 1, len(spans), "they are sent before the client ends")
		assert.Equal(t, "grpc_client", spans[0].Service())
		assert.Equal(t, "00-"+id[1]+"-"+spans[0].ID()+"-01", got[len(got)-1])
	}
	require.Len(t, got, 2)
}

func TestAReceiverThatIsAway(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
	_, addr := serve(t, hello)
	code, stdout, stderr := client(t, "-addr", addr)
	assert.Equal(t, exitAnswered, code)
	assert.Equal(t, "Hello from blue.\n", stdout)
	assert.True(t, strings.HasPrefix(stderr, "grpc_client: traces: "), stderr)
	assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
}
