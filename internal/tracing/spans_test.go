package tracing

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"lbctl/internal/accesslog"
	"lbctl/internal/instances"
	"lbctl/internal/otlptest"
	"lbctl/internal/resolver"
)

const (
	traceID  = "4bf92f3577b34da6a3ce929d0e0e4736"
	parentID = "00f067aa0ba902b7"
	spanID   = "b7ad6b7169203331"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// request returns a record of a sampled request that took 100 ms.
func request(tries ...accesslog.Try) *accesslog.Record {
	return &accesslog.Record{
		Time: noon, Took: 100 * time.Millisecond, Service: []byte("web"), Route: []byte("GET shop.example.com/api [x-version=v2]"),
		Method: []byte("GET"), Scheme: []byte("https"), HTTPVersion: []byte("2"), Host: []byte("shop.example.com"), Path: []byte("/api/carts/7"), Status: 200, GRPCStatus: -1, Completed: true,
		RequestBytes: 120, ResponseBytes: 4711, Client: []byte("192.0.2.1"), RequestID: []byte("id-1"),
		Trace: []byte(traceID + " " + parentID + " " + spanID + " 1"), Tries: tries,
	}
}

func call0(status int, tries ...accesslog.Try) *accesslog.Record {
	r := request(tries...)
	r.Service, r.Route, r.Method, r.Path, r.GRPCStatus = []byte("cart"), []byte("*"), []byte("POST"), []byte("/shop.Cart/Add"), status
	return r
}

func try(address string, status int, took time.Duration) accesslog.Try {
	return accesslog.Try{Address: []byte(address), Status: status, Connect: min(time.Millisecond, took), Header: max(took-time.Millisecond, 0), Took: took}
}

func unanswered0(address string, status int, connect, took time.Duration) accesslog.Try {
	return accesslog.Try{Address: []byte(address), Status: status, Connect: connect, Header: -1, Took: took}
}

// known knows the services web and cart, and one instance.
type known struct{}

func (known) Service(name []byte) *instances.Service {
	switch string(name) {
	case "web":
		return &instances.Service{Name: "web", Maintenance: true}
	case "cart":
		return &instances.Service{Name: "cart", GRPC: true}
	}
	return nil
}

func (known) Find(service, address []byte) *instances.Instance {
	if string(service) == "web" && string(address) == "[fd00::1]:8080" {
		return &instances.Instance{Service: "web", Node: "n1", ID: "web-1", Version: "v2"}
	}
	return nil
}

func spansOf(r *accesslog.Record) []otlptest.Span {
	e := &Exporter{opts: Options{Instances: known{}}}
	var all []otlptest.Span
	for _, s := range e.appendSpans(nil, r) {
		all = append(all, otlptest.Span{Span: s, Resource: map[string]any{"service.name": "lbctl"}})
	}
	return all
}

// times are those of a span, after the beginning of a request that ended at noon.
func times(s otlptest.Span) [2]time.Duration {
	begun := uint64(noon.Add(-100 * time.Millisecond).UnixNano())
	return [2]time.Duration{time.Duration(s.StartTimeUnixNano - begun), time.Duration(s.EndTimeUnixNano - begun)}
}

func TestSpansOfARequestWithARetry(t *testing.T) {
	t.Parallel()
	spans := spansOf(request(unanswered0("10.0.0.1:80", 502, -1, 10*time.Millisecond), try("[fd00::1]:8080", 200, 80*time.Millisecond)))
	require.Len(t, spans, 3)
	root, first, last := spans[0], spans[1], spans[2]

	assert.Equal(t, []string{traceID, traceID, traceID}, []string{root.Trace(), first.Trace(), last.Trace()})
	assert.Equal(t, parentID, root.Parent(), "the client's span is the parent")
	assert.Equal(t, spanID, last.ID(), "the instance has this id, so its span is below its own try")
	assert.Equal(t, []string{root.ID(), root.ID()}, []string{first.Parent(), last.Parent()})
	assert.Len(t, map[string]bool{root.ID(): true, first.ID(): true, last.ID(): true, parentID: true}, 4, "all ids differ")
	again := spansOf(request(unanswered0("10.0.0.1:80", 502, -1, 10*time.Millisecond), try("[fd00::1]:8080", 200, 80*time.Millisecond)))
	assert.Equal(t, []string{root.ID(), first.ID()}, []string{again[0].ID(), again[1].ID()}, "the ids follow from the request's")

	assert.Equal(t, "lbctl: GET /api SERVER\n  lbctl: GET /api CLIENT !\n  lbctl: GET /api CLIENT\n", otlptest.Tree(spans))
	assert.Equal(t, [2]time.Duration{0 * time.Millisecond, 100 * time.Millisecond}, times(root))
	assert.Equal(t, [2]time.Duration{10 * time.Millisecond, 20 * time.Millisecond}, times(first))
	assert.Equal(t, [2]time.Duration{20 * time.Millisecond, 100 * time.Millisecond}, times(last))
	assert.Equal(t, []uint32{0x301, 0x101, 0x101}, []uint32{root.Flags, first.Flags, last.Flags}, "sampled; only the client is remote")
	require.Len(t, last.Events, 2)
	assert.Equal(t, "connected", last.Events[0].Name)
	assert.Equal(t, uint64(noon.Add(-79*time.Millisecond).UnixNano()), last.Events[0].TimeUnixNano)
	assert.Equal(t, "response headers", last.Events[1].Name)
	assert.Equal(t, uint64(noon.Add(-time.Millisecond).UnixNano()), last.Events[1].TimeUnixNano)
	assert.Empty(t, first.Events)

	assert.Equal(t, map[string]any{
		"http.request.method": "GET", "server.address": "shop.example.com", "client.address": "192.0.2.1", "url.path": "/api/carts/7", "http.route": "/api", "url.scheme": "https", "network.protocol.version": "2",
		"lbctl.service": "web", "lbctl.route": "GET shop.example.com/api [x-version=v2]", "lbctl.request_id": "id-1",
		"http.request.size": int64(120), "http.response.size": int64(4711), "http.response.status_code": int64(200),
	}, otlptest.Values(root.Attributes))
	assert.Equal(t, map[string]any{
		"http.request.method": "GET", "server.address": "10.0.0.1", "server.port": int64(80), "service.peer.name": "web", "url.template": "/api",
		"lbctl.try": int64(1), "error.type": "connect",
	}, otlptest.Values(first.Attributes))
	assert.Equal(t, map[string]any{
		"http.request.method": "GET", "server.address": "fd00::1", "server.port": int64(8080), "service.peer.name": "web", "url.template": "/api",
		"lbctl.instance": "web-1", "lbctl.node": "n1", "lbctl.version": "v2", "http.request.resend_count": int64(1), "lbctl.try": int64(2), "http.response.status_code": int64(200),
	}, otlptest.Values(last.Attributes))
}

func TestSpansOfAGRPCCall(t *testing.T) {
	t.Parallel()
	spans := spansOf(call0(14, try("10.0.0.1:80", 200, 100*time.Millisecond)))
	require.Equal(t, "lbctl: shop.Cart/Add SERVER !\n  lbctl: shop.Cart/Add CLIENT !\n", otlptest.Tree(spans))
	assert.Equal(t, map[string]any{
		"rpc.system.name": "grpc", "rpc.method": "shop.Cart/Add", "server.address": "shop.example.com", "client.address": "192.0.2.1",
		"lbctl.service": "cart", "lbctl.route": "*", "lbctl.request_id": "id-1", "http.request.size": int64(120), "http.response.size": int64(4711),
		"rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE",
	}, otlptest.Values(spans[0].Attributes))
	assert.Equal(t, map[string]any{
		"rpc.system.name": "grpc", "rpc.method": "shop.Cart/Add", "server.address": "10.0.0.1", "server.port": int64(80), "service.peer.name": "cart",
		"lbctl.try": int64(1), "rpc.response.status_code": "UNAVAILABLE", "error.type": "UNAVAILABLE",
	}, otlptest.Values(spans[1].Attributes))
}

// TestTimesOfSpans checks tries whose times, which nginx rounds, do not fit into the request's.
func TestTimesOfSpans(t *testing.T) {
	t.Parallel()
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		name  string
		took  time.Duration
		tries []time.Duration
		want  [][2]time.Duration
	}{
		{"tries begin late if the request waited", 100 * ms, []time.Duration{30 * ms}, [][2]time.Duration{{0, 100 * ms}, {70 * ms, 100 * ms}}},
		{"longer than the request", 100 * ms, []time.Duration{101 * ms}, [][2]time.Duration{{0, 100 * ms}, {0, 100 * ms}}},
		{"longer together", 100 * ms, []time.Duration{60 * ms, 50 * ms}, [][2]time.Duration{{0, 100 * ms}, {0, 50 * ms}, {50 * ms, 100 * ms}}},
		{"the last one has all of it", 100 * ms, []time.Duration{60 * ms, 100 * ms}, [][2]time.Duration{{0, 100 * ms}, {0, us}, {0, 100 * ms}}},
		{"no time at all", 0, []time.Duration{0, 0}, [][2]time.Duration{{100 * ms, 100*ms + us}, {100 * ms, 100*ms + us}, {100 * ms, 100*ms + us}}},
		{"no time in between", 100 * ms, []time.Duration{0, -1, 40 * ms}, [][2]time.Duration{{0, 100 * ms}, {60 * ms, 60*ms + us}, {60 * ms, 60*ms + us}, {60 * ms, 100 * ms}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := request()
			r.Took = c.took
			for _, took := range c.tries {
				r.Tries = append(r.Tries, unanswered0("10.0.0.1:80", 502, -1, took))
			}
			var got [][2]time.Duration
			for _, s := range spansOf(r) {
				got = append(got, times(s))
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	const addr = "10.0.0.1:80"
	change := func(r *accesslog.Record, change func(*accesslog.Record)) *accesslog.Record {
		change(r)
		return r
	}
	for _, c := range []struct {
		name   string
		record *accesslog.Record
		want   string // for each span: its name, "!" if it is an error, and attributes about the outcome
	}{
		{"an answer", request(try(addr, 200, 1)), "GET /api 200 | GET /api 200"},
		{"the client's mistake is an error of the try only", change(request(try(addr, 404, 1)), func(r *accesslog.Record) { r.Status = 404 }),
			"GET /api 404 | GET /api ! 404 error=404"},
		{"an instance's error", change(request(try(addr, 503, 1)), func(r *accesslog.Record) { r.Status = 503 }),
			"GET /api ! 503 error=503 | GET /api ! 503 error=503"},
		{"an instance that can't be reached", change(request(unanswered0(addr, 502, -1, 1)), func(r *accesslog.Record) { r.Status, r.OwnError = 502, 502 }),
			"GET /api ! 502 reason=unreachable error=502 | GET /api ! error=connect"},
		{"an instance that breaks off", change(request(unanswered0(addr, 502, 0, 1)), func(r *accesslog.Record) { r.Status, r.OwnError = 502, 502 }),
			"GET /api ! 502 reason=no-answer error=502 | GET /api ! error=reset"},
		{"an instance that is too slow", change(request(unanswered0(addr, 504, 0, 1)), func(r *accesslog.Record) { r.Status, r.OwnError = 504, 504 }),
			"GET /api ! 504 reason=timeout error=504 | GET /api ! error=timeout"},
		{"a client that does not wait", change(request(unanswered0(addr, 0, 0, 1)), func(r *accesslog.Record) { r.Status, r.Completed = 499, false }),
			"GET /api reason=client-left error=cancelled | GET /api error=cancelled"},
		{"an answer that is broken off", change(request(try(addr, 200, 1)), func(r *accesslog.Record) { r.Completed = false }),
			"GET /api 200 error=incomplete | GET /api 200"},
		{"no instance", change(request(unanswered0(resolver.Sentinel, 502, -1, 1)), func(r *accesslog.Record) { r.Status, r.OwnError = 503, 502 }),
			"GET /api ! 503 reason=no-instance error=503"},
		{"all instances busy", change(request(try(addr, 502, 1), unanswered0("lb_web", 502, -1, 0)), func(r *accesslog.Record) { r.Status, r.OwnError = 503, 502 }),
			"GET /api ! 503 reason=max-conns error=503 | GET /api ! 502 error=502"},
		{"no service", change(request(), func(r *accesslog.Record) {
			r.Service, r.Route, r.Status, r.OwnError = nil, nil, 404, 404
		}), "GET 404 reason=no-route"},
		{"an unknown method", change(request(try(addr, 200, 1)), func(r *accesslog.Record) { r.Method = []byte("LAUNCH") }),
			"HTTP /api method=_OTHER/LAUNCH 200 | HTTP /api method=_OTHER/LAUNCH 200"},
		{"a route without path", change(request(try(addr, 200, 1)), func(r *accesslog.Record) { r.Route = []byte("shop.example.com") }), "GET / 200 | GET / 200"},
		{"a route for a whole path", change(request(try(addr, 200, 1)), func(r *accesslog.Record) { r.Route = []byte("*=/health") }), "GET /health 200 | GET /health 200"},

		{"a call", call0(0, try(addr, 200, 1)), "shop.Cart/Add OK | shop.Cart/Add OK"},
		{"the caller's mistake is an error of the try only", call0(3, try(addr, 200, 1)),
			"shop.Cart/Add INVALID_ARGUMENT | shop.Cart/Add ! INVALID_ARGUMENT error=INVALID_ARGUMENT"},
		{"a status that gRPC does not have", call0(42, try(addr, 200, 1)), "shop.Cart/Add OTHER | shop.Cart/Add ! OTHER error=OTHER"},
		{"nginx's own status", change(call0(14, unanswered0(addr, 502, -1, 1)), func(r *accesslog.Record) { r.OwnError = 502 }),
			"shop.Cart/Add ! UNAVAILABLE reason=unreachable error=UNAVAILABLE | shop.Cart/Add ! error=connect"},
		{"a call that its client cancelled", change(call0(-1, try(addr, 200, 1)), func(r *accesslog.Record) { r.Completed = false }),
			"shop.Cart/Add error=incomplete | shop.Cart/Add"},
		{"a call that its client cancelled before the answer", change(call0(-1, unanswered0(addr, 0, 0, 1)), func(r *accesslog.Record) { r.Status, r.Completed = 499, false }),
			"shop.Cart/Add reason=client-left error=cancelled | shop.Cart/Add error=cancelled"},
		{"a call whose time was over", change(call0(-1, unanswered0(addr, 0, 0, 1)), func(r *accesslog.Record) { r.Status, r.Timeout = 499, 100*time.Millisecond }),
			"shop.Cart/Add ! DEADLINE_EXCEEDED reason=client-left error=DEADLINE_EXCEEDED | shop.Cart/Add error=timeout"},
		{"a call of an unknown service", change(call0(12), func(r *accesslog.Record) { r.Service, r.Route, r.OwnError = nil, nil, 404 }),
			"grpc method=_OTHER/shop.Cart/Add ! UNIMPLEMENTED reason=no-route error=UNIMPLEMENTED"},
		{"a path that is no method", change(call0(12, try(addr, 200, 1)), func(r *accesslog.Record) { r.Path = []byte("/a/b/c") }),
			"grpc method=_OTHER/a/b/c ! UNIMPLEMENTED error=UNIMPLEMENTED | grpc method=_OTHER/a/b/c ! UNIMPLEMENTED error=UNIMPLEMENTED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, s := range spansOf(c.record) {
				got = append(got, outcome(s))
			}
			assert.Equal(t, c.want, strings.Join(got, " | "))
		})
	}
}

func outcome(s otlptest.Span) string {
	words := []string{s.Name}
	values := otlptest.Values(s.Attributes)
	for _, key := range []string{"http.request.method_original", "rpc.method_original"} {
		if original, ok := values[key]; ok {
			words = append(words, "method="+values[strings.TrimSuffix(key, "_original")].(string)+"/"+original.(string))
		}
	}
	if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		words = append(words, "!")
	}
	for _, key := range []string{"http.response.status_code", "rpc.response.status_code"} {
		if v, ok := values[key]; ok {
			words = append(words, strings.TrimSpace(toText(v)))
		}
	}
	if v, ok := values["lbctl.reason"]; ok {
		words = append(words, "reason="+toText(v))
	}
	if v, ok := values["error.type"]; ok {
		words = append(words, "error="+toText(v))
	}
	return strings.Join(words, " ")
}
