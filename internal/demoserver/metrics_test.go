package demoserver

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lbctl/internal/metrics/metricstest"
	"lbctl/protos"
)

func TestMetrics(t *testing.T) {
	p := start(t, "-metrics=127.0.0.1:0")
	address, _ := p.line("serving metrics")["address"].(string)
	scrape := func() metricstest.Metrics {
		t.Helper()
		m, err := metricstest.Scrape("http://" + address + "/metrics")
		require.NoError(t, err)
		return m
	}
	conn := p.dial()
	_, err := protos.NewPingClient(conn).SayHello(bounded(t), &protos.PingMessage{})
	require.NoError(t, err)
	for _, name := range []string{"/a.B/C", "/d.E/F"} {
		err := conn.Invoke(bounded(t), name, &protos.PingMessage{}, &protos.PingMessage{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
	}
	stream, err := protos.NewPingClient(conn).Stream(bounded(t), grpc.WaitForReady(true))
	require.NoError(t, err)
	exchange(t, stream)

	m := scrape()
	for _, want := range []struct {
		value  float64
		metric string
		labels []string
	}{
		{1, "grpc_server_handled_total", []string{"grpc_service", "protos.Ping", "grpc_method", "SayHello", "grpc_code", "OK"}},
		{1, "grpc_server_handling_seconds", []string{"grpc_service", "protos.Ping", "grpc_method", "SayHello"}},
		{2, "grpc_server_handled_total", []string{"grpc_service", "unknown", "grpc_method", "unknown", "grpc_code", "UNIMPLEMENTED"}},
		{1, "grpc_server_started_total", []string{"grpc_service", "protos.Ping", "grpc_method", "Stream"}},
		{0, "grpc_server_handled_total", []string{"grpc_service", "protos.Ping", "grpc_method", "Stream"}},
		{1, "grpc_server_in_flight", []string{"grpc_service", "protos.Ping", "grpc_method", "Stream"}},
		{0, "grpc_server_in_flight", []string{"grpc_service", "protos.Ping", "grpc_method", "SayHello"}},
	} {
		got, ok := m.Value(want.metric, want.labels...)
		assert.True(t, ok && got == want.value, "%s%q is %v, want %v", want.metric, want.labels, got, want.value)
	}
	metricstest.CheckDocumented(t, "../../docs/metrics.md", "grpc_server_", m)
	metricstest.Promtool(t, m)

	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.Error(t, err, "the end of the stream")
	p.line("call", "method", protos.Ping_Stream_FullMethodName)
	inFlight, _ := scrape().Value("grpc_server_in_flight", "grpc_method", "Stream")
	assert.Zero(t, inFlight)
}
