package main

import (
	"cmp"
	"context"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // exporters may compress
	"google.golang.org/protobuf/proto"
)

const (
	keptTraces    = 10_000 // of which the oldest goes first
	keptSpans     = 1_000  // of a trace; later ones are dropped
	biggestExport = 16 << 20
)

//go:embed pages
var pages embed.FS

// A store keeps the newest traces in memory.
type store struct {
	collector.UnimplementedTraceServiceServer

	mu     sync.Mutex
	traces map[string]*trace
	order  []string // ids, the oldest first
}

// The types below have the names and fields of Jaeger's HTTP API.
type (
	trace struct {
		TraceID   string             `json:"traceID"`
		Spans     []span             `json:"spans"`
		Processes map[string]process `json:"processes"`
	}
	process struct {
		ServiceName string `json:"serviceName"`
		Tags        []tag  `json:"tags"`
	}
	span struct {
		TraceID       string      `json:"traceID"`
		SpanID        string      `json:"spanID"`
		OperationName string      `json:"operationName"`
		References    []reference `json:"references"`
		StartTime     int64       `json:"startTime"` // microseconds since 1970
		Duration      int64       `json:"duration"`  // microseconds
		Tags          []tag       `json:"tags"`
		Logs          []event     `json:"logs"`
		ProcessID     string      `json:"processID"`
	}
	reference struct {
		RefType string `json:"refType"`
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	}
	tag struct {
		Key   string `json:"key"`
		Type  string `json:"type"`
		Value any    `json:"value"`
	}
	event struct {
		Timestamp int64 `json:"timestamp"` // microseconds since 1970
		Fields    []tag `json:"fields"`
	}
)

// runTraces takes spans by OTLP on the usual ports, and answers Jaeger's questions and a browser
// on 16686.
func runTraces(ctx context.Context) error {
	s := &store{traces: map[string]*trace{}}
	listener, err := net.Listen("tcp", ":4317")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(biggestExport))
	collector.RegisterTraceServiceServer(server, s)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	context.AfterFunc(ctx, server.Stop)
	var group sync.WaitGroup
	run := func(f func() error) {
		group.Go(func() { cancel(f()) })
	}
	run(func() error { return server.Serve(listener) })
	run(func() error { return serve(ctx, ":4318", http.HandlerFunc(s.receive)) })
	run(func() error { return serve(ctx, ":16686", s.handler()) })
	group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Export takes spans by OTLP over gRPC.
func (s *store) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.add(r.GetResourceSpans())
	return &collector.ExportTraceServiceResponse{}, nil
}

// receive takes spans by OTLP over HTTP, as protobuf.
func (s *store) receive(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" {
		http.NotFound(w, r)
		return
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-protobuf" {
		http.Error(w, fmt.Sprintf("content type %q, want application/x-protobuf", got), http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, biggestExport))
	export := &collector.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, export)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.add(export.GetResourceSpans())
	answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Write(answer) //nolint:errcheck // the exporter is gone
}

func (s *store) add(resources []*spans.ResourceSpans) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range resources {
		from := process{Tags: tags(resource.GetResource().GetAttributes())}
		for _, t := range from.Tags {
			if t.Key == "service.name" {
				from.ServiceName = fmt.Sprint(t.Value)
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, sp := range scope.GetSpans() {
				if len(sp.GetTraceId()) == 16 && len(sp.GetSpanId()) == 8 {
					s.addSpan(from, sp)
				}
			}
		}
	}
}

func (s *store) addSpan(from process, sp *spans.Span) {
	id := hex.EncodeToString(sp.GetTraceId())
	t := s.traces[id]
	if t == nil {
		t = &trace{TraceID: id, Processes: map[string]process{}}
		s.traces[id] = t
		s.order = append(s.order, id)
		if len(s.order) > keptTraces {
			delete(s.traces, s.order[0])
			s.order = s.order[1:]
		}
	}
	if len(t.Spans) >= keptSpans {
		return
	}
	key := ""
	for k, p := range t.Processes {
		if p.ServiceName == from.ServiceName && slices.Equal(p.Tags, from.Tags) {
			key = k
		}
	}
	if key == "" {
		key = "p" + strconv.Itoa(len(t.Processes)+1)
		t.Processes[key] = from
	}
	// The slices of a trace are only appended to, so that readers need no copy of them.
	t.Spans = append(t.Spans, toSpan(id, key, sp))
}

func toSpan(id, key string, sp *spans.Span) span {
	out := span{
		TraceID:       id,
		SpanID:        hex.EncodeToString(sp.GetSpanId()),
		OperationName: sp.GetName(),
		References:    []reference{},
		StartTime:     int64(sp.GetStartTimeUnixNano() / 1000),
		Duration:      int64((sp.GetEndTimeUnixNano() - sp.GetStartTimeUnixNano()) / 1000),
		Tags:          tags(sp.GetAttributes()),
		Logs:          []event{},
		ProcessID:     key,
	}
	if parent := sp.GetParentSpanId(); len(parent) > 0 {
		out.References = append(out.References, reference{RefType: "CHILD_OF", TraceID: id, SpanID: hex.EncodeToString(parent)})
	}
	switch sp.GetKind() {
	case spans.Span_SPAN_KIND_CLIENT:
		out.Tags = append(out.Tags, tag{"span.kind", "string", "client"})
	case spans.Span_SPAN_KIND_SERVER:
		out.Tags = append(out.Tags, tag{"span.kind", "string", "server"})
	}
	if sp.GetStatus().GetCode() == spans.Status_STATUS_CODE_ERROR {
		out.Tags = append(out.Tags, tag{"error", "bool", true}, tag{"otel.status_code", "string", "ERROR"})
		if text := sp.GetStatus().GetMessage(); text != "" {
			out.Tags = append(out.Tags, tag{"otel.status_description", "string", text})
		}
	}
	for _, e := range sp.GetEvents() {
		out.Logs = append(out.Logs, event{
			Timestamp: int64(e.GetTimeUnixNano() / 1000),
			Fields:    append([]tag{{"event", "string", e.GetName()}}, tags(e.GetAttributes())...),
		})
	}
	return out
}

func tags(attributes []*common.KeyValue) []tag {
	out := make([]tag, 0, len(attributes))
	for _, a := range attributes {
		t := tag{Key: a.GetKey(), Type: "string"}
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_BoolValue:
			t.Type, t.Value = "bool", v.BoolValue
		case *common.AnyValue_IntValue:
			t.Type, t.Value = "int64", v.IntValue
		case *common.AnyValue_DoubleValue:
			t.Type, t.Value = "float64", v.DoubleValue
		case *common.AnyValue_StringValue:
			t.Value = v.StringValue
		default: // a list or a map
			t.Value = a.GetValue().String()
		}
		out = append(out, t)
	}
	return out
}

func (s *store) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/services", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.services()) })
	mux.HandleFunc("GET /api/traces", func(w http.ResponseWriter, r *http.Request) { answer(w, s.search(r)) })
	mux.HandleFunc("GET /api/traces/{id}", func(w http.ResponseWriter, r *http.Request) {
		found, ok := s.trace(r.PathValue("id"))
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(map[string]any{"data": nil, "errors": []any{map[string]any{"code": 404, "msg": "trace not found"}}}) //nolint:errcheck // the client is gone
			return
		}
		answer(w, []trace{found})
	})
	mux.HandleFunc("GET /{$}", page("traces.html"))
	mux.HandleFunc("GET /search", page("traces.html"))
	mux.HandleFunc("GET /trace/{id}", page("traces.html"))
	return mux
}

// answer writes a list in Jaeger's envelope.
func answer[T any](w http.ResponseWriter, list []T) {
	if list == nil {
		list = []T{}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"data": list, "total": len(list), "limit": 0, "offset": 0, "errors": nil}) //nolint:errcheck // the client is gone
}

// page serves an embedded page. It may load and ask only what is its own.
func page(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writePage(w, http.StatusOK, name) }
}

func writePage(w http.ResponseWriter, status int, name string) {
	text, err := pages.ReadFile("pages/" + name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	w.Write(text) //nolint:errcheck // the client is gone
}

func (s *store) services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for _, t := range s.traces {
		for _, p := range t.Processes {
			names[p.ServiceName] = true
		}
	}
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func (s *store) trace(id string) (trace, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.traces[id]
	if t == nil {
		return trace{}, false
	}
	return t.copy(), true
}

func (t *trace) copy() trace {
	out := trace{TraceID: t.TraceID, Spans: slices.Clone(t.Spans), Processes: make(map[string]process, len(t.Processes))}
	for key, p := range t.Processes {
		out.Processes[key] = p
	}
	return out
}

// search finds the newest traces that have a span which fulfils all conditions of the request:
// service, operation, tags (a JSON object), start and end (microseconds since 1970), minDuration
// and maxDuration (of the span), and at most limit of them.
func (s *store) search(r *http.Request) []trace {
	limit := cmp.Or(number(r.FormValue("limit")), 20)
	wanted := map[string]string{}
	json.Unmarshal([]byte(r.FormValue("tags")), &wanted) //nolint:errcheck // then none is wanted
	least, _ := time.ParseDuration(r.FormValue("minDuration"))
	most, _ := time.ParseDuration(r.FormValue("maxDuration"))
	start, end := number(r.FormValue("start")), number(r.FormValue("end"))
	matches := func(t *trace, sp span) bool {
		if name := r.FormValue("service"); name != "" && t.Processes[sp.ProcessID].ServiceName != name {
			return false
		}
		if name := r.FormValue("operation"); name != "" && name != "all" && sp.OperationName != name {
			return false
		}
		for key, value := range wanted {
			if !slices.ContainsFunc(sp.Tags, func(t tag) bool { return t.Key == key && fmt.Sprint(t.Value) == value }) {
				return false
			}
		}
		took := time.Duration(sp.Duration) * time.Microsecond
		return took >= least && (most == 0 || took <= most) && sp.StartTime >= start && (end == 0 || sp.StartTime <= end)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []trace
	for n := len(s.order) - 1; n >= 0 && int64(len(found)) < limit; n-- {
		t := s.traces[s.order[n]]
		if slices.ContainsFunc(t.Spans, func(sp span) bool { return matches(t, sp) }) {
			found = append(found, t.copy())
		}
	}
	return found
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}
