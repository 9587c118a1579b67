package requestlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/instances"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 123e6, time.UTC)

// index knows web-1 and web-2 of web, and cart-1 of cart, which is gRPC.
func index(t testing.TB) *instances.Index {
	t.Helper()
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	service := func(name string, protocol endpoints.Protocol, addresses ...string) endpoints.Service {
		s := endpoints.Service{Name: name, OK: true, Spec: endpoints.Spec{Protocol: protocol, Routes: []endpoints.Route{{Host: name}}}}
		for n, address := range addresses {
			s.Instances = append(s.Instances, endpoints.Instance{
				ID: fmt.Sprintf("%s-%d", name, n+1), Node: "node", Address: address, Port: 80, Weight: 1, Status: endpoints.Passing, Version: "v" + fmt.Sprint(n+1),
			})
		}
		return s
	}
	table.Observe(noon, []endpoints.Service{service("cart", endpoints.GRPC, "10.0.1.1"), service("web", endpoints.HTTP, "10.0.0.1", "10.0.0.2")})
	return instances.New(table, func(string) []string { return nil })
}

func newLog(t testing.TB, opts Options) *Log {
	t.Helper()
	opts.Index = index(t)
	return New(opts)
}

// get is a request to web, which web-1 has answered.
func get() *accesslog.Record {
	return &accesslog.Record{
		Time: noon, Took: 12 * time.Millisecond, Service: []byte("web"), Route: []byte("web/api"), Method: []byte("GET"), Scheme: []byte("https"), HTTPVersion: []byte("1.1"),
		Host: []byte("web"), Path: []byte("/api/items"), Status: 200, GRPCStatus: -1, Completed: true, RequestBytes: 120, ResponseBytes: 4711,
		Client: []byte("192.0.2.7"), RequestID: []byte("b9c0e1d2f3a4b5c6d7e8f90a1b2c3d4e"),
		Trace: []byte("4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 d7e8f90a1b2c3d4e 1"),
		Tries: []accesslog.Try{{Address: []byte("10.0.0.1:80"), Status: 200, Connect: time.Millisecond, Header: 11 * time.Millisecond, Took: 12 * time.Millisecond}},
	}
}

// with returns a request after a change.
func with(change func(r *accesslog.Record)) *accesslog.Record {
	r := get()
	change(r)
	return r
}

// records are requests of all kinds.
var records = map[string]*accesslog.Record{
	"an answer": get(),
	"a second try": with(func(r *accesslog.Record) {
		r.Tries = append([]accesslog.Try{{Address: []byte("10.0.0.2:80"), Status: 502, Connect: -1, Header: -1, Took: 0}}, r.Tries...)
	}),
	"a session": {TCP: true, Time: noon, Took: time.Minute, Service: []byte("db"), Host: []byte("db.test"), Status: 200, GRPCStatus: -1, Completed: true,
		RequestBytes: 10, ResponseBytes: 20, Client: []byte("192.0.2.7"), Tries: []accesslog.Try{{Address: []byte("10.0.0.1:80"), Connect: 0, Header: -1, Took: time.Minute}}},
	"a session without an instance": {TCP: true, Time: noon, Service: []byte("db"), Status: 502, OwnError: 502, GRPCStatus: -1,
		Client: []byte("192.0.2.7"), Tries: []accesslog.Try{{Address: []byte("127.0.0.1:0"), Connect: -1, Header: -1, Took: 0}}},
	"a session that nginx refused": {TCP: true, Time: noon, Service: []byte("db"), Status: 500, OwnError: 403, GRPCStatus: -1, Client: []byte("192.0.2.7")},
	"no route":                     {Time: noon, Method: []byte("GET"), Host: []byte("other"), Path: []byte("/"), Status: 404, OwnError: 404, GRPCStatus: -1, Completed: true, Client: []byte("192.0.2.7")},
	"a gRPC call": with(func(r *accesslog.Record) {
		r.Service, r.Path, r.Method, r.GRPCStatus, r.Took = []byte("cart"), []byte("/shop.Cart/Add"), []byte("POST"), 14, 61500*time.Millisecond
		r.Tries[0].Address = []byte("10.0.1.1:80")
	}),
	"a gRPC call that the client broke off": with(func(r *accesslog.Record) {
		r.Service, r.Status, r.Completed, r.Trace = []byte("cart"), 499, false, nil
		r.Tries[0] = accesslog.Try{Address: []byte("10.0.9.9:80"), Connect: 0, Header: -1, Took: -1}
	}),
	"no instance": with(func(r *accesslog.Record) {
		r.Status, r.OwnError, r.Tries = 503, 502, []accesslog.Try{{Address: []byte("127.0.0.1:0"), Status: 502, Connect: -1, Header: -1, Took: 0}}
	}),
	"a question about health": with(func(r *accesslog.Record) {
		r.Service, r.Route, r.Path = nil, []byte("health"), []byte("/health")
		r.Tries[0].Address = []byte("unix:/run/lbctl/health.sock")
	}),
	"texts of an attacker": with(func(r *accesslog.Record) {
		r.Method, r.HTTPVersion, r.Host = []byte("G\"E\\T"), []byte("1.\x1b"), []byte("\x00\x1f\x7f\b\f\r\n\t")
		r.Path = []byte("/\xff\xc3\xe2\x82/größer/\u2028\u2029\u202e<&>/\x1b]52;c;aGk=\a")
		r.Trace = []byte("4bf92f3577b34da6a3ce929d0e0e4736 - d7e8f90a1b2c3d4e 0")
	}),
}

// lines returns the lines of a log that match a filter.
func lines(t *testing.T, l *Log, f Filter, limit int) (all []Line) {
	t.Helper()
	items, _, _ := l.last(&f, limit)
	var r request
	for _, i := range items {
		var line Line
		require.NoError(t, json.Unmarshal(i.appendTo(nil, &r), &line))
		all = append(all, line)
	}
	return all
}

// msgs returns the messages of a log that match a filter.
func msgs(t *testing.T, l *Log, f Filter, limit int) (all []string) {
	t.Helper()
	for _, line := range lines(t, l, f, limit) {
		all = append(all, line.Msg)
	}
	return all
}

func TestTheLineOfARequest(t *testing.T) {
	for name, record := range records {
		t.Run(name, func(t *testing.T) {
			l := newLog(t, Options{})
			l.Take(record)
			items, _, _ := l.last(&Filter{}, 1)
			require.Len(t, items, 1)
			var r request
			text := string(items[0].appendTo(nil, &r))
			var line Line
			decoder := json.NewDecoder(strings.NewReader(text))
			decoder.DisallowUnknownFields()
			require.NoError(t, decoder.Decode(&line), text)
			assert.Equal(t, string(marshal(line))+"\n", text, "as encoding/json writes it")
			assert.Equal(t, -1, strings.IndexFunc(text, func(r rune) bool { return r >= 0x7f || r < ' ' && r != '\n' }), "it can't control a terminal")
			assert.Equal(t, 1, strings.Count(text, "\n"))
		})
	}

	l := newLog(t, Options{})
	l.Take(records["a second try"])
	items, _, _ := l.last(&Filter{}, 1)
	var r request
	assert.JSONEq(t, `{
		"time": "2026-11-27T12:00:00.123Z", "level": "WARN", "msg": "GET /api/items 200", "type": "request",
		"service": "web", "route": "web/api", "protocol": "http", "method": "GET", "scheme": "https", "http_version": "1.1", "host": "web", "path": "/api/items", "status": 200, "duration_seconds": 0.012,
		"instance": "web-1", "node": "node", "endpoint": "10.0.0.1:80", "version": "v1",
		"upstream_connect_seconds": 0.001, "upstream_header_seconds": 0.011, "upstream_response_seconds": 0.012,
		"tries": [
			{"endpoint": "10.0.0.2:80", "instance": "web-2", "node": "node", "result": "connect", "status": 502, "response_seconds": 0},
			{"endpoint": "10.0.0.1:80", "instance": "web-1", "node": "node", "result": "success", "status": 200, "connect_seconds": 0.001, "header_seconds": 0.011, "response_seconds": 0.012}
		],
		"complete": true, "request_bytes": 120, "response_bytes": 4711, "client": "192.0.2.7", "request_id": "b9c0e1d2f3a4b5c6d7e8f90a1b2c3d4e",
		"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "d7e8f90a1b2c3d4e", "parent_span_id": "00f067aa0ba902b7", "trace_flags": "01"
	}`, string(items[0].appendTo(nil, &r)))
}

// FuzzLine gives a request texts of an attacker.
func FuzzLine(f *testing.F) {
	f.Add([]byte("GET"), []byte("/a?b"), []byte("host"), []byte("id"), 404, -1, 404)
	f.Add([]byte("\x00"), []byte("/\xff\u2028\U000e0041"), []byte(`"\`), []byte("\x1b]52;c;aGk=\a"), 200, 14, 0)
	l := newLog(f, Options{})
	f.Fuzz(func(t *testing.T, method, path, host, id []byte, status, grpcStatus, own int) {
		entry := appendEntry(nil, with(func(r *accesslog.Record) {
			r.Method, r.Path, r.Host, r.RequestID, r.Status, r.GRPCStatus, r.OwnError, r.Trace = method, path, host, id, status, grpcStatus, own, id
		}), l.opts.Index)
		var r request
		r.decode(entry)
		text := appendJSON(nil, &r, 0)
		var line Line
		require.NoError(t, json.Unmarshal(text, &line), "%q", text)
		assert.Equal(t, string(marshal(line))+"\n", string(text))
		assert.Equal(t, -1, bytes.IndexFunc(text[:len(text)-1], func(r rune) bool { return r < ' ' || r >= 0x7f }), "%q", text)
	})
}

func TestLevelsAndMessages(t *testing.T) {
	for name, want := range map[string]string{
		"an answer":                             "INFO GET /api/items 200",
		"a second try":                          "WARN GET /api/items 200",
		"no route":                              "WARN GET / 404",
		"a gRPC call":                           "ERROR /shop.Cart/Add UNAVAILABLE",
		"a gRPC call that the client broke off": "WARN /api/items 499",
		"no instance":                           "ERROR GET /api/items 503",
	} {
		l := newLog(t, Options{})
		l.Take(records[name])
		line := lines(t, l, Filter{}, 1)[0]
		assert.Equal(t, want, line.Level+" "+line.Msg, name)
	}
}

// What a request's record says, its line says too.
func TestNothingOfARecordIsLost(t *testing.T) {
	before := newLog(t, Options{})
	before.Take(get())
	plain := marshal(lines(t, before, Filter{}, 1)[0])
	changes := map[string]func(r *accesslog.Record){
		"Time": func(r *accesslog.Record) { r.Time = r.Time.Add(time.Millisecond) }, "Took": func(r *accesslog.Record) { r.Took++; r.Took = time.Second },
		"Service": func(r *accesslog.Record) { r.Service = []byte("cart") }, "Route": func(r *accesslog.Record) { r.Route = nil },
		"Method": func(r *accesslog.Record) { r.Method = []byte("PUT") }, "Host": func(r *accesslog.Record) { r.Host = nil },
		"Scheme": func(r *accesslog.Record) { r.Scheme = []byte("http") }, "HTTPVersion": func(r *accesslog.Record) { r.HTTPVersion = []byte("2") },
		"Path": func(r *accesslog.Record) { r.Path = nil }, "Status": func(r *accesslog.Record) { r.Status = 201 },
		"OwnError": func(r *accesslog.Record) { r.OwnError = 404 }, "GRPCStatus": func(r *accesslog.Record) { r.GRPCStatus = 0; r.Service = []byte("cart") },
		"Timeout":   func(r *accesslog.Record) { r.Timeout = time.Millisecond; r.Service = []byte("cart") }, // the client saw DEADLINE_EXCEEDED
		"Completed": func(r *accesslog.Record) { r.Completed = false }, "RequestBytes": func(r *accesslog.Record) { r.RequestBytes++ },
		"ResponseBytes": func(r *accesslog.Record) { r.ResponseBytes++ }, "Client": func(r *accesslog.Record) { r.Client = nil },
		"RequestID": func(r *accesslog.Record) { r.RequestID = nil }, "Trace": func(r *accesslog.Record) { r.Trace = nil },
		"TCP":   func(r *accesslog.Record) { r.TCP = true },
		"Tries": func(r *accesslog.Record) { r.Tries[0].Took = time.Hour },
	}
	for field := range reflect.TypeFor[accesslog.Record]().Fields() {
		if !field.IsExported() {
			continue // the reader's own
		}
		change := changes[field.Name]
		require.NotNil(t, change, "the log does not know %s", field.Name)
		l := newLog(t, Options{})
		l.Take(with(change))
		assert.NotEqual(t, plain, marshal(lines(t, l, Filter{}, 1)[0]), field.Name)
	}
}

func TestLbctlIsNoEndpoint(t *testing.T) {
	l := newLog(t, Options{})
	l.Take(records["a question about health"])
	line := lines(t, l, Filter{}, 1)[0]
	assert.Empty(t, line.Endpoint)
	assert.Equal(t, []Try{{Result: "success", Status: 200, ConnectSeconds: line.Tries[0].ConnectSeconds, HeaderSeconds: line.Tries[0].HeaderSeconds, ResponseSeconds: line.Tries[0].ResponseSeconds}}, line.Tries)
}

func TestLbctlsOwnRequestsAreNotInTheLog(t *testing.T) {
	l := newLog(t, Options{})
	l.Take(with(func(r *accesslog.Record) { r.Client = []byte("unix:") }))
	assert.Empty(t, lines(t, l, Filter{}, 10))
}

func TestTheLastLinesAreKept(t *testing.T) {
	l := newLog(t, Options{Memory: MinMemory})
	const n = 20_000
	for i := range n {
		l.Take(with(func(r *accesslog.Record) { r.Path = fmt.Appendf(nil, "/%d", i) }))
	}
	all := msgs(t, l, Filter{}, MaxLimit)
	require.Greater(t, len(all), 2500, "of some 300 bytes each")
	require.Less(t, len(all), n)
	for i, msg := range all {
		require.Equal(t, fmt.Sprintf("GET /%d 200", n-len(all)+i), msg)
	}
	assert.Equal(t, all[len(all)-7:], msgs(t, l, Filter{}, 7))
	assert.Empty(t, msgs(t, l, Filter{}, 0))
}

func TestEventsAndRequestsAreInTheOrderOfTime(t *testing.T) {
	events := []history.Event{ // the newest first, as the history has them
		{Time: noon.Add(3 * time.Second), Kind: history.Ejected, Change: "web: web-1 on node"},
		{Time: noon.Add(time.Second), Kind: history.Applied, Generation: 7, Change: "web +1"},
	}
	l := newLog(t, Options{Events: func() []history.Event { return events }})
	for _, after := range []time.Duration{4 * time.Second, 0, 2 * time.Second} { // nginx's workers write when they have some
		l.Take(with(func(r *accesslog.Record) { r.Time, r.Path = noon.Add(after), fmt.Appendf(nil, "/%s", after) }))
	}
	assert.Equal(t, []string{"GET /0s 200", "configuration applied", "GET /2s 200", "instances ejected", "GET /4s 200"}, msgs(t, l, Filter{}, 10))
	assert.Equal(t, []string{"instances ejected", "GET /4s 200"}, msgs(t, l, Filter{}, 2))
	assert.Equal(t, []string{"configuration applied", "instances ejected"}, msgs(t, l, Filter{Type: TypeEvent}, 10))
	assert.Equal(t, []string{"GET /2s 200", "GET /4s 200"}, msgs(t, l, Filter{Type: TypeRequest}, 2))
	assert.Equal(t, []string{"instances ejected", "GET /4s 200"}, msgs(t, l, Filter{Since: noon.Add(3 * time.Second)}, 10))
}

// TestAnEventSaysAllOfTheHistory finds a field of a history.Event that the line lacks.
func TestAnEventSaysAllOfTheHistory(t *testing.T) {
	event := history.Event{
		Time: noon, Kind: history.RolledBack, Generation: 7, From: 8, TookSeconds: 0.5, Change: "web +1", Reason: "nginx serves 7",
		Left: []history.Departure{{Service: "web", ID: "web-1", Node: "node", Reason: "in maintenance"}},
	}
	v := reflect.ValueOf(event)
	for n := range v.NumField() {
		require.False(t, v.Field(n).IsZero(), v.Type().Field(n).Name)
	}
	l := newLog(t, Options{Events: func() []history.Event { return []history.Event{event} }})
	line := lines(t, l, Filter{}, 1)[0]
	assert.Equal(t, event, line.event())
	assert.Equal(t, "ERROR", line.Level)
}

func BenchmarkTake(b *testing.B) {
	l, r := newLog(b, Options{}), records["a second try"]
	b.ReportAllocs()
	for b.Loop() {
		l.Take(r)
	}
}

func BenchmarkLine(b *testing.B) {
	entry := appendEntry(nil, records["a second try"], index(b))
	var r request
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		r.decode(entry)
		line = appendJSON(line[:0], &r, 0)
	}
	b.SetBytes(int64(len(line)))
}

func TestNoAllocations(t *testing.T) {
	l, record := newLog(t, Options{}), records["a second try"]
	l.Take(record)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { l.Take(record) }))
	entry := appendEntry(nil, record, l.opts.Index)
	var r request
	var line []byte
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		r.decode(entry)
		line = appendJSON(line[:0], &r, 0.5)
	}))
}
