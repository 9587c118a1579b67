package otlptest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Trace is the id of the span's trace, in hexadecimal digits.
func (s Span) Trace() string { return hex.EncodeToString(s.TraceId) }

// ID is the span's id, in hexadecimal digits.
func (s Span) ID() string { return hex.EncodeToString(s.SpanId) }

// Parent is the id of the span's parent, in hexadecimal digits; empty if it has none.
func (s Span) Parent() string { return hex.EncodeToString(s.ParentSpanId) }

// Service is the name of the service that made the span.
func (s Span) Service() string { return fmt.Sprint(s.Resource["service.name"]) }

// Values returns attributes as values of Go: strings, int64, bool and float64.
func Values(attributes []*commonpb.KeyValue) map[string]any {
	all := map[string]any{}
	for _, a := range attributes {
		switch v := a.Value.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.Key] = v.IntValue
		case *commonpb.AnyValue_BoolValue:
			all[a.Key] = v.BoolValue
		case *commonpb.AnyValue_DoubleValue:
			all[a.Key] = v.DoubleValue
		default:
			all[a.Key] = a.Value.String()
		}
	}
	return all
}

// Of returns the spans of a trace, sorted by their beginning.
func Of(spans []Span, trace string) []Span {
	var all []Span
	for _, s := range spans {
		if s.Trace() == trace {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b Span) int {
		switch {
		case a.StartTimeUnixNano < b.StartTimeUnixNano:
			return -1
		case a.StartTimeUnixNano > b.StartTimeUnixNano:
			return 1
		}
		return 0
	})
	return all
}

// Tree writes spans as a tree, one line for each: "service: name KIND", and "!" for an error.
// Children are below their parents, in the order of the spans.
func Tree(spans []Span) string {
	known := map[string]bool{}
	for _, s := range spans {
		known[s.Trace()+s.ID()] = true
	}
	var b strings.Builder
	var write func(parent string, depth int)
	write = func(parent string, depth int) {
		for _, s := range spans {
			of := s.Trace() + s.Parent()
			if of != parent && (parent != "" || known[of]) {
				continue
			}
			mark := ""
			if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
				mark = " !"
			}
			fmt.Fprintf(&b, "%s%s: %s %s%s\n", strings.Repeat("  ", depth), s.Service(), s.Name, strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"), mark)
			write(s.Trace()+s.ID(), depth+1)
		}
	}
	write("", 0)
	return b.String()
}
