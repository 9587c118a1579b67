// Package otlptest receives traces in tests, by OpenTelemetry's protocol: in the test's process,
// or with the real receiver of OpenTelemetry's Collector.
package otlptest

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// patience bounds how long a test waits for spans. Only a failing test waits so long.
const patience = 30 * time.Second

// Receiver has the spans that came.
type Receiver struct {
	URL     string // for OTLP over gRPC
	HTTPURL string // for OTLP over HTTP with protobuf

	mu      sync.Mutex
	spans   []Span
	headers metadata.MD
	changed chan struct{} // closed when spans come

	answer func(*collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error)
}

// Span is a span with what its resource says.
type Span struct {
	*tracepb.Span
	Resource map[string]any
}

// Start starts a receiver in the test's process. It ends with the test.
func Start(t testing.TB) *Receiver {
	t.Helper()
	return StartWith(t, func(*collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
		return &collectorpb.ExportTraceServiceResponse{}, nil
	})
}

// StartWith is Start with a receiver that answers what a function says. It has the spans of all
// requests.
func StartWith(t testing.TB, answer func(*collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error)) *Receiver {
	t.Helper()
	r := &Receiver{changed: make(chan struct{}), answer: answer}
	overGRPC := listen(t)
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, &service{receiver: r})
	go server.Serve(overGRPC)
	t.Cleanup(server.Stop)
	r.URL = "http://" + overGRPC.Addr().String()

	overHTTP := listen(t)
	web := &http.Server{Handler: http.HandlerFunc(r.serveHTTP)}
	go web.Serve(overHTTP)
	t.Cleanup(func() { web.Close() })
	r.HTTPURL = "http://" + overHTTP.Addr().String()
	return r
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type service struct {
	collectorpb.UnimplementedTraceServiceServer
	receiver *Receiver
}

func (s *service) Export(ctx context.Context, request *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	s.receiver.add(request.ResourceSpans, headers)
	return s.receiver.answer(request)
}

func (r *Receiver) serveHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/v1/traces" {
		http.NotFound(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	request := &collectorpb.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	headers := metadata.MD{}
	for name, values := range req.Header {
		headers.Append(name, values...)
	}
	r.add(request.ResourceSpans, headers)
	answer, err := r.answer(request)
	if err == nil {
		body, err = proto.Marshal(answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(body)
}

func (r *Receiver) add(all []*tracepb.ResourceSpans, headers metadata.MD) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range all {
		resource := Values(of.Resource.GetAttributes())
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, Span{Span: s, Resource: resource})
			}
		}
	}
	r.headers = headers
	close(r.changed)
	r.changed = make(chan struct{})
}

// Spans returns all spans that came so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Headers returns those of the last request.
func (r *Receiver) Headers() metadata.MD {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.headers
}

// Wait waits until the spans that came are enough, and returns them.
func (r *Receiver) Wait(t testing.TB, enough func([]Span) bool) []Span {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		spans, changed := slices.Clone(r.spans), r.changed
		r.mu.Unlock()
		if enough(spans) {
			return spans
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("wait for spans: not enough within %s: %s", patience, Tree(spans))
		}
	}
}
