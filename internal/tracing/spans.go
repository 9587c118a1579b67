package tracing

import (
	"bytes"
	"net"
	"strconv"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"lbctl/internal/accesslog"
	"lbctl/internal/resolver"
)

// Attributes for which OpenTelemetry has no name.
const (
	keyService   = "lbctl.service"
	keyRoute     = "lbctl.route"
	keyRequestID = "lbctl.request_id"
	keyReason    = "lbctl.reason"   // why nginx answered itself, see accesslog.Record.OwnReason
	keyTry       = "lbctl.try"      // 1 for the first one
	keyInstance  = "lbctl.instance" // its id in Consul
	keyNode      = "lbctl.node"     // its node in Consul
	keyVersion   = "lbctl.version"  // its lb-version
)

// appendSpans appends the span of a request and those of its tries. A record without a valid trace
// has none.
//
// The instance that was tried last gets the id of its try, and its own span is a child of that.
// nginx can't give each try another id, so those of the others, and that of the request, follow
// from it.
func (e *Exporter) appendSpans(spans []*tracepb.Span, r *accesslog.Record) []*tracepb.Span {
	trace, ok := parseContext(r.Trace)
	if !ok || !trace.sampled {
		return spans
	}
	tries := realTries(r)
	c := newCall(r, e.opts.Instances)
	root := c.requestSpan()
	root.TraceId, root.SpanId, root.Flags = trace.trace[:], trace.span[:], sampledFlags
	if trace.parent != [8]byte{} {
		root.ParentSpanId, root.Flags = trace.parent[:], root.Flags|uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	if len(tries) > 0 {
		id := derived(trace.span, 0)
		root.SpanId = id[:]
	}
	period := between(r.Time.Add(-r.Took), r.Time)
	root.StartTimeUnixNano, root.EndTimeUnixNano = period.nanos()
	spans = append(spans, root)

	// nginx does not say when a try began. It makes them one after the other, and what takes time
	// besides is mostly before the first one: to check who asks, or to delay the request.
	end := r.Time
	first := len(spans)
	spans = append(spans, make([]*tracepb.Span, len(tries))...)
	for n := len(tries) - 1; n >= 0; n-- {
		try := &r.Tries[tries[n]]
		start := end.Add(-max(try.Took, 0))
		span := c.trySpan(tries[n], n)
		span.TraceId, span.SpanId, span.ParentSpanId, span.Flags = root.TraceId, trace.span[:], root.SpanId, sampledFlags
		if n < len(tries)-1 {
			id := derived(trace.span, n+1)
			span.SpanId = id[:]
		}
		within := between(start, end).within(period)
		span.StartTimeUnixNano, span.EndTimeUnixNano = within.nanos()
		span.Events = events(try, within)
		spans[first+n] = span
		end = start
	}
	return spans
}

// sampledFlags are a span's flags: sampled, and known whether its parent is remote.
const sampledFlags = 1 | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)

// realTries returns which of the record's tries are those of instances. nginx also logs that it
// has found none that it may try: with the name of the upstream, or the address that stands for no
// instance.
func realTries(r *accesslog.Record) []int {
	var real []int
	for n := range r.Tries {
		if address := r.Tries[n].Address; string(address) != resolver.Sentinel && bytes.IndexByte(address, ':') >= 0 {
			real = append(real, n)
		}
	}
	return real
}

// period is a time from one moment to another.
type period struct{ start, end time.Time }

// shortest is how long a span takes at least: nginx's times are milliseconds, and stores show no
// span without a duration.
const shortest = time.Microsecond

func between(start, end time.Time) period {
	if end.Sub(start) < shortest {
		end = start.Add(shortest)
	}
	return period{start, end}
}

// within returns the part of p within the outer period.
func (p period) within(outer period) period {
	if p.start.Before(outer.start) {
		p.start = outer.start
	}
	if latest := outer.end.Add(-shortest); p.start.After(latest) {
		p.start = latest
	}
	if p.end.After(outer.end) {
		p.end = outer.end
	}
	return between(p.start, p.end)
}

func (p period) nanos() (start, end uint64) {
	return uint64(p.start.UnixNano()), uint64(p.end.UnixNano())
}

// events says when nginx was connected, and when it had the headers of the answer.
func events(t *accesslog.Try, p period) []*tracepb.Span_Event {
	var all []*tracepb.Span_Event
	add := func(name string, after time.Duration) {
		if at := p.start.Add(after); after >= 0 && !at.After(p.end) {
			all = append(all, &tracepb.Span_Event{TimeUnixNano: uint64(at.UnixNano()), Name: name})
		}
	}
	add("connected", t.Connect)
	add("response headers", t.Header)
	return all
}

// peer returns the attributes of an instance's address.
func peer(address []byte) []*commonpb.KeyValue {
	if path, ok := bytes.CutPrefix(address, []byte("unix:")); ok {
		return []*commonpb.KeyValue{text(semconv.ServerAddressKey, string(path))}
	}
	host, port, err := net.SplitHostPort(string(address))
	if err != nil {
		return []*commonpb.KeyValue{text(semconv.ServerAddressKey, string(address))}
	}
	n, _ := strconv.Atoi(port)
	return []*commonpb.KeyValue{text(semconv.ServerAddressKey, host), number(semconv.ServerPortKey, int64(n))}
}
