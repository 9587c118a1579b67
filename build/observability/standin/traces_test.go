package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// A trace that OpenTelemetry's own exporter sends is found, whole, in the form of Jaeger's API.
func TestTraceIsFound(t *testing.T) {
	s := &store{traces: map[string]*trace{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	defer server.Stop()
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(listener.Addr().String()), otlptracegrpc.WithInsecure(), otlptracegrpc.WithCompressor("gzip"))
	require.NoError(t, err)
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"))))
	tracer := provider.Tracer("test")
	ctx, root := tracer.Start(t.Context(), "GET /cart", api.WithSpanKind(api.SpanKindServer), api.WithAttributes(attribute.Int("http.response.status_code", 502)))
	_, child := tracer.Start(ctx, "try 1", api.WithSpanKind(api.SpanKindClient))
	child.AddEvent("refused")
	child.SetStatus(codes.Error, "connection refused")
	child.End()
	root.End()
	require.NoError(t, provider.Shutdown(t.Context()))

	web := httptest.NewServer(s.handler())
	defer web.Close()
	var services struct{ Data []string }
	get(t, web.URL+"/api/services", http.StatusOK, &services)
	assert.Equal(t, []string{"shop"}, services.Data)

	var found struct{ Data []trace }
	get(t, web.URL+"/api/traces/"+root.SpanContext().TraceID().String(), http.StatusOK, &found)
	require.Len(t, found.Data, 1)
	require.Len(t, found.Data[0].Spans, 2)
	byName := map[string]span{}
	for _, sp := range found.Data[0].Spans {
		byName[sp.OperationName] = sp
		assert.Equal(t, "shop", found.Data[0].Processes[sp.ProcessID].ServiceName)
	}
	assert.Empty(t, byName["GET /cart"].References)
	assert.Contains(t, byName["GET /cart"].Tags, tag{"http.response.status_code", "int64", 502.0})
	assert.Equal(t, root.SpanContext().SpanID().String(), byName["try 1"].References[0].SpanID)
	assert.Contains(t, byName["try 1"].Tags, tag{"error", "bool", true})
	assert.Contains(t, byName["try 1"].Tags, tag{"otel.status_description", "string", "connection refused"})
	assert.Equal(t, "refused", byName["try 1"].Logs[0].Fields[0].Value)

	for query, want := range map[string]int{
		"service=shop":    1,
		"service=other":   0,
		"operation=try+1": 1,
		"operation=try+2": 0,
		"minDuration=1h":  0,
		"maxDuration=1h":  1,
		"tags=" + url.QueryEscape(`{"error":"true"}`): 1,
		"tags=" + url.QueryEscape(`{"error":"no"}`):   0,
	} {
		found.Data = nil
		get(t, web.URL+"/api/traces?"+query, http.StatusOK, &found)
		assert.Len(t, found.Data, want, query)
	}
	var missing struct{ Errors []struct{ Msg string } }
	get(t, web.URL+"/api/traces/ffffffffffffffffffffffffffffffff", http.StatusNotFound, &missing)
	assert.Equal(t, "trace not found", missing.Errors[0].Msg)
}

// The store forgets the oldest traces, and keeps no trace of any size.
func TestStoreIsBounded(t *testing.T) {
	s := &store{traces: map[string]*trace{}}
	id := func(n int) []byte { return append(make([]byte, 12), byte(n>>24), byte(n>>16), byte(n>>8), byte(n)) }
	export := func(trace, span int) {
		s.add([]*otlp.ResourceSpans{{ScopeSpans: []*otlp.ScopeSpans{{Spans: []*otlp.Span{{TraceId: id(trace), SpanId: id(span)[8:], EndTimeUnixNano: uint64(time.Second)}}}}}})
	}
	for n := range keptTraces + 10 {
		export(n, 1)
	}
	for n := range keptSpans + 10 {
		export(keptTraces+9, n)
	}
	assert.Len(t, s.traces, keptTraces)
	_, first := s.trace("00000000000000000000000000000000")
	assert.False(t, first, "the oldest is gone")
	last, ok := s.trace("0000000000000000000000000000" + "2719") // keptTraces + 9
	assert.True(t, ok)
	assert.Len(t, last.Spans, keptSpans)
	s.add([]*otlp.ResourceSpans{{ScopeSpans: []*otlp.ScopeSpans{{Spans: []*otlp.Span{{TraceId: []byte{1}}}}}}})
	assert.Len(t, s.traces, keptTraces, "a span without a whole id is left out")
}

func get(t *testing.T, url string, want int, into any) {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, want, resp.StatusCode, url)
	require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
}
