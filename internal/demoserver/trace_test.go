package demoserver

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"lbctl/internal/otlptest"
	"lbctl/protos"
)

// TestSpansOfCalls checks that calls have spans below those of their clients, and that health
// checks have none.
func TestSpansOfCalls(t *testing.T) {
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	p := start(t)
	conn := p.dial()
	_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	_, err = protos.NewPingClient(conn).SayHello(ctx, &protos.PingMessage{})
	require.NoError(t, err)
	p.stop()
	require.Equal(t, exitStopped, <-p.code)
	spans := receiver.Spans()
	require.Equal(t, 1, len(spans), "they are sent before the server ends")
	assert.Equal(t, "grpc_server: protos.Ping/SayHello SERVER\n", otlptest.Tree(spans))
	assert.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", spans[0].Trace())
	assert.Equal(t, "00f067aa0ba902b7", spans[0].Parent())
}
