package traffic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy/policytest"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// world has Counters of the services in a table.
type world struct {
	t        testing.TB
	table    fakeTable
	counters *Counters
	services []endpoints.Service
	now      time.Time
	dns      map[string][]string
}

func newWorld(t testing.TB, services ...endpoints.Service) *world {
	t.Helper()
	w := &world{t: t, services: services, now: noon, dns: map[string][]string{}}
	w.observe()
	w.counters = New(Options{Table: &w.table, Addresses: func(host string) []string { return w.dns[host] }})
	w.pass(0)
	return w
}

// inConsul returns a service with instances at addresses, such as "10.0.0.1@v1", and port 80.
func inConsul(name string, protocol endpoints.Protocol, addresses ...string) endpoints.Service {
	s := endpoints.Service{Name: name, OK: true, Spec: endpoints.Spec{Protocol: protocol, Routes: []endpoints.Route{{Path: "/" + name}}}}
	for n, address := range addresses {
		host, version, _ := strings.Cut(address, "@")
		s.Instances = append(s.Instances, endpoints.Instance{ID: fmt.Sprintf("%s-%d", name, n+1), Node: "n", Address: host, Port: 80, Weight: 1, Status: endpoints.Passing, Version: version})
	}
	return s
}

func (w *world) observe() { w.table.set(w.services) }

// fakeTable is an endpoints.Table without a guard, which would hold instances that vanish.
type fakeTable struct {
	entries  []endpoints.Entry
	revision uint64
}

func (t *fakeTable) Entries() []endpoints.Entry { return t.entries }

func (t *fakeTable) set(services []endpoints.Service) {
	t.entries = make([]endpoints.Entry, 0, len(services)+1)
	for _, s := range services {
		t.revision++
		s.Revision = t.revision
		t.entries = append(t.entries, endpoints.Entry{Service: s})
	}
}

// pass lets time pass. Then Run would have swept.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.counters.sweep(w.now)
}

// take takes n records of the service web, changed by change.
func (w *world) take(n int, change func(*accesslog.Record)) {
	for range n {
		r := &accesslog.Record{
			Time: w.now, Took: 5 * time.Millisecond, Service: []byte("web"), Route: []byte("*/web"), Status: 200, GRPCStatus: -1, Completed: true,
			RequestBytes: 100, ResponseBytes: 1000, Client: []byte("10.0.0.9"), Tries: []accesslog.Try{answer("10.0.0.1:80", 200)},
		}
		if change != nil {
			change(r)
		}
		w.counters.take(w.now, r)
	}
}

func answer(address string, status int) accesslog.Try {
	return accesslog.Try{Address: []byte(address), Status: status, Connect: 0, Header: 4 * time.Millisecond, Took: 4 * time.Millisecond}
}

// Sessions count by what became of them, and have nothing of requests.
func TestSessions(t *testing.T) {
	w := newWorld(t, inConsul("db", endpoints.TCP, "10.0.0.1@v1", "10.0.0.2@v1"), inConsul("web", endpoints.HTTP, "10.0.1.1"))
	session := func(change func(*accesslog.Record)) {
		w.take(1, func(r *accesslog.Record) {
			r.TCP, r.Service, r.Route, r.Took = true, []byte("db"), nil, 10*time.Minute
			change(r)
		})
	}
	refused := func(status int, tries ...accesslog.Try) {
		session(func(r *accesslog.Record) { r.OwnError, r.Completed, r.Tries = status, false, tries })
	}
	session(func(*accesslog.Record) {})
	session(func(r *accesslog.Record) {
		r.Tries = append([]accesslog.Try{lost("10.0.0.2:80", 0, false)}, r.Tries...)
	})
	refused(502, lost("10.0.0.2:80", 0, false))
	refused(502, lost("127.0.0.1:0", 0, false))
	refused(502, lost("tcp-db", 0, false))
	for _, status := range []int{0, 400, 403, 404, 429, 496, 500} {
		refused(status)
	}
	session(func(r *accesslog.Record) { r.Service = nil; r.OwnError, r.Completed, r.Tries = 404, false, nil })
	session(func(r *accesslog.Record) { r.Service = []byte("web") }) // it was TCP before
	session(func(r *accesslog.Record) { r.Service = []byte("gone") })

	w.counters.inFlight = func() map[string]int64 { return map[string]int64{} } // of requests only
	db, _ := w.counters.Service("db")
	assert.Equal(t, int64(-1), db.InFlight)
	results := map[string]uint64{}
	for _, r := range db.Sessions {
		results[r.Result] = r.Count
	}
	want := map[string]uint64{}
	for _, result := range SessionResults() {
		want[result] = 1
	}
	want[Success] = 2
	assert.Equal(t, want, results)
	assert.Equal(t, "tcp", db.Protocol)
	assert.Empty(t, db.Requests)
	assert.Empty(t, db.Refused)
	assert.Equal(t, map[string]uint64{"connect": 1}, db.Retries)
	assert.Equal(t, uint64(12), db.Duration.Counts[10], "all took ten minutes")
	assert.Equal(t, []Result{{"success", 2}}, db.Instances[0].Results)
	assert.Equal(t, []Result{{"connect", 2}}, db.Instances[1].Results)
	assert.Equal(t, "no connection", db.Instances[1].LastError)
	assert.Equal(t, []Result{{"success", 2}, {"no-route", 1}}, w.counters.UnroutedSessions())
	web, _ := w.counters.Service("web")
	assert.Empty(t, web.Requests)
	assert.Empty(t, w.counters.Unrouted())

	w.pass(2 * recentSeconds * time.Second)
	o := w.counters.overview()
	errors := 0.0
	for _, p := range o.All.Points {
		errors += p.Errors * recentSeconds
	}
	assert.Equal(t, 4.0, errors, "no-instance, unreachable, max-conns and internal")
	assert.Equal(t, -1.0, o.All.P99, "how long sessions take is no matter of requests")
	assert.InEpsilon(t, 600, o.Services[0].P99, 0.13)

	next := New(Options{Table: &w.table, InFlight: w.counters.inFlight})
	require.NoError(t, next.Restore(w.counters.AppendSnapshot(nil)))
	assert.Equal(t, w.counters.Services(), next.Services())
	assert.Equal(t, w.counters.UnroutedSessions(), next.UnroutedSessions())
}

// lost is a try without an answer.
func lost(address string, status int, connected bool) accesslog.Try {
	t := accesslog.Try{Address: []byte(address), Status: status, Connect: -1, Header: -1, Took: time.Millisecond}
	if connected {
		t.Connect = 0
	}
	return t
}

// of returns the totals of a service.
func (w *world) of(name string) Service {
	w.t.Helper()
	s, ok := w.counters.Service(name)
	if !ok {
		w.t.Fatalf("there is no service %s", name)
	}
	return s
}

func TestATotalOfEachKind(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1@v1", "10.0.0.2@v2"))
	w.take(3, nil)
	w.take(1, func(r *accesslog.Record) {
		r.Took, r.Tries = 2*time.Second, []accesslog.Try{lost("10.0.0.2:80", 502, false), answer("10.0.0.1:80", 503)}
		r.Status = 503
	})
	s := w.of("web")
	assert.Equal(t, []Requests{{"*/web", "2xx", "", 3}, {"*/web", "5xx", "", 1}}, s.Requests)
	assert.Equal(t, "http", s.Protocol)
	assert.Equal(t, map[string]uint64{"connect": 1}, s.Retries)
	assert.Equal(t, []uint64{400, 4000}, []uint64{s.RequestBytes, s.ResponseBytes})
	assert.Equal(t, int64(-1), s.InFlight)
	assert.InDelta(t, 2.015, s.Duration.Sum, 1e-9)
	assert.Equal(t, []uint64{0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, s.Duration.Counts)
	require.Len(t, s.Versions, 2)
	assert.Equal(t, []Result{{"success", 3}, {"5xx", 1}}, s.Versions[0].Requests)
	assert.Equal(t, []Result{{"connect", 1}}, s.Versions[1].Requests)
	assert.Equal(t, []uint64{0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, s.Versions[0].Duration.Counts)
	assert.Equal(t, []Instance{
		{"10.0.0.1:80", "n", "web-1", "v1", []Result{{"success", 3}, {"5xx", 1}}, "answered 503", noon.Local()},
		{"10.0.0.2:80", "n", "web-2", "v2", []Result{{"connect", 1}}, "no connection", noon.Local()},
	}, s.Instances)
	assert.Empty(t, w.counters.Unrouted())

	w.take(2, func(r *accesslog.Record) { r.Client = []byte("unix:") })
	w.take(2, func(r *accesslog.Record) { r.Service, r.Route, r.Tries = nil, []byte("health"), nil })
	w.take(2, func(r *accesslog.Record) { r.Service, r.Route, r.Tries, r.Status, r.OwnError = nil, nil, nil, 200, 404 })
	assert.Equal(t, []Requests{{"", "4xx", "", 2}}, w.counters.Unrouted(), "a gRPC client gets 200 for nginx's 404")
	assert.Equal(t, s, w.of("web"))
}

func TestTries(t *testing.T) {
	const first = "10.0.0.1:80"
	expired := func(r *accesslog.Record) { r.Timeout = r.Took }
	for _, test := range []struct {
		name   string
		change func(*accesslog.Record)
		http   string // the result; empty: none
		grpc   string
		status string // of gRPC
	}{
		{"an answer with status OK", func(r *accesslog.Record) { r.GRPCStatus = 0 }, "success", "success", "OK"},
		{"the caller's mistake", func(r *accesslog.Record) { r.GRPCStatus = 3 }, "success", "success", "INVALID_ARGUMENT"},
		{"the server's error", func(r *accesslog.Record) { r.GRPCStatus = 13 }, "success", "INTERNAL", "INTERNAL"},
		{"a deadline that the server ended", func(r *accesslog.Record) { r.GRPCStatus = 4 }, "success", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"},
		{"an unknown status", func(r *accesslog.Record) { r.GRPCStatus = 99 }, "success", "success", "OTHER"},
		{"an answer without a gRPC status", func(*accesslog.Record) {}, "success", "UNKNOWN", "NONE"},
		{"an answer that broke off", func(r *accesslog.Record) { r.Completed = false }, "cancelled", "cancelled", "NONE"},
		{"an answer that broke off at the deadline", func(r *accesslog.Record) { r.Completed = false; expired(r) }, "timeout", "timeout", "DEADLINE_EXCEEDED"},
		{"an answer that is not gRPC", func(r *accesslog.Record) { r.Status, r.Tries[0].Status = 404, 404 }, "success", "4xx", "NONE"},
		{"an HTTP error", func(r *accesslog.Record) { r.Status, r.Tries[0].Status = 500, 500 }, "5xx", "5xx", "NONE"},
		{"a client that did not wait", func(r *accesslog.Record) { r.Status, r.Tries[0] = 499, lost(first, 0, true) }, "cancelled", "cancelled", "NONE"},
		{"a client whose time was over", func(r *accesslog.Record) { r.Status, r.Tries[0] = 499, lost(first, 0, true); expired(r) }, "timeout", "timeout", "DEADLINE_EXCEEDED"},
		{"no connection", func(r *accesslog.Record) { r.OwnError, r.GRPCStatus, r.Tries[0] = 502, 14, lost(first, 502, false) }, "connect", "connect", "UNAVAILABLE"},
		{"no connection in time", func(r *accesslog.Record) { r.OwnError, r.GRPCStatus, r.Tries[0] = 504, 14, lost(first, 504, false) }, "connect", "connect", "UNAVAILABLE"},
		{"no answer in time", func(r *accesslog.Record) {
			r.OwnError, r.GRPCStatus, r.Tries[0] = 504, 4, lost(first, 504, true)
		}, "timeout", "timeout", "DEADLINE_EXCEEDED"},
		{"a connection that broke off", func(r *accesslog.Record) { r.OwnError, r.GRPCStatus, r.Tries[0] = 502, 14, lost(first, 502, true) }, "reset", "reset", "UNAVAILABLE"},
		{"no instance in rotation", func(r *accesslog.Record) {
			r.OwnError, r.GRPCStatus, r.Tries[0] = 502, 14, lost("127.0.0.1:0", 502, false)
		}, "", "", "UNAVAILABLE"},
		{"an instance that the table does not have", func(r *accesslog.Record) { r.GRPCStatus, r.Tries[0] = 0, answer("10.9.9.9:80", 200) }, "", "", "OK"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for protocol, want := range map[endpoints.Protocol]string{endpoints.HTTP: test.http, endpoints.GRPC: test.grpc} {
				w := newWorld(t, inConsul("web", protocol, "10.0.0.1"))
				w.take(1, test.change)
				s := w.of("web")
				var results []Result
				if want != "" {
					results = []Result{{want, 1}}
				}
				assert.Equal(t, results, s.Instances[0].Results, protocol)
				require.Len(t, s.Requests, 1)
				status := ""
				if protocol == endpoints.GRPC {
					status = test.status
				}
				assert.Equal(t, status, s.Requests[0].GRPCStatus)
				assert.Empty(t, s.Retries)
			}
		})
	}
}

func TestRetries(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1", "10.0.0.2", "10.0.0.3"))
	for _, tries := range [][]accesslog.Try{
		{lost("10.0.0.1:80", 502, false), lost("10.0.0.2:80", 502, true), answer("10.0.0.3:80", 200)},
		{lost("10.0.0.1:80", 504, true), answer("10.0.0.2:80", 503), answer("10.0.0.3:80", 200)},
		{answer("10.0.0.1:80", 418), answer("10.0.0.2:80", 200)},
		{lost("10.9.9.9:80", 502, false), answer("10.0.0.3:80", 200)}, // gone from the table
		{lost("10.0.0.1:80", 502, false), lost("web", 502, false)},    // no other one was left
	} {
		w.take(1, func(r *accesslog.Record) { r.Tries = tries })
	}
	assert.Equal(t, map[string]uint64{"connect": 2, "reset": 1, "timeout": 1, "status-503": 1, "other": 1}, w.of("web").Retries)
}

func TestRefusals(t *testing.T) {
	for own, want := range map[int]string{
		401: "unauthenticated", 403: "denied", 413: "body-too-large", 421: "unauthenticated", 429: "rate-limit", 431: "headers-too-large", 404: "", 503: "", 502: "", 400: "",
	} {
		w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"))
		w.take(1, func(r *accesslog.Record) { r.Status, r.OwnError, r.Tries = own, own, nil })
		refused := map[string]uint64{}
		if want != "" {
			refused[want] = 1
		}
		assert.Equal(t, refused, w.of("web").Refused, own)
	}

	closed := inConsul("web", endpoints.GRPC, "10.0.0.1")
	closed.Policy = policytest.Settings("maintenance.enabled", "on")
	w := newWorld(t, closed)
	w.take(1, func(r *accesslog.Record) { r.GRPCStatus, r.OwnError, r.Tries = 14, 503, nil })
	assert.Equal(t, map[string]uint64{"maintenance": 1}, w.of("web").Refused)

	w.take(1, func(r *accesslog.Record) {
		r.GRPCStatus, r.OwnError, r.Tries = 8, 502, []accesslog.Try{lost("grpc_web", 502, false)}
	})
	assert.Equal(t, map[string]uint64{"maintenance": 1, "max-conns": 1}, w.of("web").Refused)
	assert.Empty(t, w.of("web").Instances[0].Results)

	// An instance's own answer, and one that nginx tried, are no refusals.
	w.take(1, func(r *accesslog.Record) { r.Status, r.Tries[0].Status = 429, 429 })
	w.take(1, func(r *accesslog.Record) { r.Status, r.OwnError = 413, 413 })
	assert.Equal(t, map[string]uint64{"maintenance": 1, "max-conns": 1}, w.of("web").Refused)
}

func TestTheFirstRequestsToWhatIsNewCount(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"))
	s := inConsul("web", endpoints.HTTP, "10.0.0.1", "10.0.0.2")
	s.Routes = append(s.Routes, endpoints.Route{Host: "shop.example", Path: "/"})
	other := inConsul("other", endpoints.HTTP, "10.0.1.1")
	other.Default = true
	w.services = []endpoints.Service{s, other}
	w.observe() // and before the next sweep:
	w.take(1, func(r *accesslog.Record) {
		r.Route, r.Tries = []byte("shop.example/"), []accesslog.Try{answer("10.0.0.2:80", 200)}
	})
	w.take(1, func(r *accesslog.Record) {
		r.Service, r.Route, r.Tries = []byte("other"), []byte("*"), []accesslog.Try{answer("10.0.1.1:80", 200)}
	})
	assert.Equal(t, []Requests{{"shop.example/", "2xx", "", 1}}, w.of("web").Requests)
	assert.Equal(t, []Result{{"success", 1}}, w.of("web").Instances[1].Results)
	assert.Equal(t, []Requests{{"*", "2xx", "", 1}}, w.of("other").Requests)
}

// The tests have a clock of their own, which can be behind the machine's.
func TestWhatHasLeftIsForgottenMinutesLater(t *testing.T) {
	s := inConsul("web", endpoints.HTTP, "10.0.0.1@v1", "10.0.0.2@v2")
	s.Routes = append(s.Routes, endpoints.Route{Path: "/old"})
	w := newWorld(t, s, inConsul("old", endpoints.HTTP, "10.0.1.1"))
	old := func(r *accesslog.Record) {
		r.Route, r.Tries = []byte("*/old"), []accesslog.Try{answer("10.0.0.2:80", 200)}
	}
	oldService := func(r *accesslog.Record) {
		r.Service, r.Route, r.Tries = []byte("old"), []byte("*/old"), []accesslog.Try{answer("10.0.1.1:80", 200)}
	}
	w.take(1, nil)
	w.take(1, old)
	w.take(1, oldService)

	w.services = []endpoints.Service{inConsul("web", endpoints.HTTP, "10.0.0.1@v1")}
	w.observe()
	w.pass(time.Second)
	w.take(1, old) // a request that was on its way
	w.take(1, oldService)
	w.pass(DefaultLinger - 2*time.Second)
	assert.Equal(t, []Requests{{"*/old", "2xx", "", 2}, {"*/web", "2xx", "", 1}}, w.of("web").Requests)
	assert.Equal(t, []Result{{"success", 2}}, w.of("web").Instances[1].Results)
	assert.Len(t, w.of("web").Versions, 2)
	assert.Equal(t, []Requests{{"*/old", "2xx", "", 2}}, w.of("old").Requests)

	w.pass(forgetInterval + 2*time.Second)
	for range 2 { // a late stream does not make a series again
		assert.Equal(t, uint64(1), w.of("web").Requests[len(w.of("web").Requests)-1].Count)
		assert.Len(t, w.of("web").Instances, 1)
		assert.Len(t, w.of("web").Versions, 1)
		assert.Len(t, w.counters.Services(), 1)
		w.take(1, old)
		w.take(1, oldService)
	}
	assert.Equal(t, []Requests{{"", "2xx", "", 2}, {"*/web", "2xx", "", 1}}, w.of("web").Requests, "they count, under no route")
	assert.Equal(t, []Requests{{"", "2xx", "", 2}}, w.counters.Unrouted())
}

func TestWhatReturnsInTimeGoesOn(t *testing.T) {
	s := inConsul("web", endpoints.HTTP, "10.0.0.1")
	w := newWorld(t, s)
	w.take(2, nil)
	w.services = nil
	w.observe()
	w.pass(time.Minute)
	w.services = []endpoints.Service{s}
	w.observe()
	w.pass(2 * DefaultLinger)
	w.take(1, nil)
	assert.Equal(t, []Requests{{"*/web", "2xx", "", 3}}, w.of("web").Requests)
	assert.Equal(t, []Result{{"success", 3}}, w.of("web").Instances[0].Results)
}

func TestAnInstanceWithAnotherVersionIsAnotherOne(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1@v1"))
	w.take(2, nil)
	w.services = []endpoints.Service{inConsul("web", endpoints.HTTP, "10.0.0.1@v2")}
	w.observe()
	w.pass(time.Second)
	w.take(1, nil)
	i := w.of("web").Instances
	require.Len(t, i, 2)
	assert.Equal(t, []any{"v1", []Result{{"success", 2}}, "v2", []Result{{"success", 1}}}, []any{i[0].Version, i[0].Results, i[1].Version, i[1].Results})
}

func TestInstancesWithHostNames(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "db.example"))
	w.take(1, nil)
	assert.Empty(t, w.of("web").Instances[0].Results)
	w.dns["db.example"] = []string{"10.0.0.1", "fd00::0009"}
	w.pass(time.Second)
	w.take(1, nil)
	w.take(1, func(r *accesslog.Record) { r.Tries[0].Address = []byte("[fd00::9]:80") })
	assert.Equal(t, []Result{{"success", 2}}, w.of("web").Instances[0].Results)
	assert.Equal(t, "db.example:80", w.of("web").Instances[0].Endpoint)
}

// TestWhatClientsChooseMakesNoSeries has a client, and an instance, that send random values.
func TestWhatClientsChooseMakesNoSeries(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"), inConsul("cart", endpoints.GRPC, "10.0.1.1"))
	for _, name := range []string{"web", "cart", "", "gone"} {
		w.take(20_000, func(r *accesslog.Record) {
			random := fmt.Appendf(nil, "%x", rand.Uint64())
			r.Service, r.Route, r.Method, r.Host, r.Path, r.RequestID, r.Trace, r.Client = []byte(name), random, random, random, random, random, random, random
			r.Status, r.OwnError, r.GRPCStatus = rand.IntN(1000), rand.IntN(1000), rand.IntN(1000)-1
			r.Completed = rand.IntN(2) == 0
			address := "10.0.0.1:80"
			if name == "cart" {
				address = "10.0.1.1:80"
			}
			r.Tries = []accesslog.Try{lost(string(random)+":80", rand.IntN(1000), false), answer(address, rand.IntN(1000))}
		})
	}
	assert.Len(t, w.counters.Services(), 2)
	for _, s := range w.counters.Services() {
		assert.LessOrEqual(t, len(s.Requests), 6*19)
		assert.Len(t, s.Instances, 1)
		assert.LessOrEqual(t, len(s.Instances[0].Results), numResults)
		assert.Len(t, s.Versions, 1)
		total := uint64(0)
		for _, r := range s.Requests {
			assert.Empty(t, r.Route)
			total += r.Count
		}
		assert.Equal(t, uint64(20_000), total)
	}
	total := uint64(0)
	for _, r := range w.counters.Unrouted() {
		total += r.Count
	}
	assert.Equal(t, uint64(40_000), total)
	assert.LessOrEqual(t, len(w.counters.Unrouted()), 6)
}

// TestInstancesThatComeAndGoNeedNoMemory has 1,000 instances, of which each minute the next 100
// come and go.
func TestInstancesThatComeAndGoNeedNoMemory(t *testing.T) {
	all := make([]string, 1000)
	w := newWorld(t, inConsul("web", endpoints.HTTP))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for minute := range 60 {
		for n := range all {
			all[n] = fmt.Sprintf("10.%d.%d.%d@v%d", (n+100*minute)/1000, (n+100*minute)/250%4, (n+100*minute)%250, minute%3)
		}
		w.services = []endpoints.Service{inConsul("web", endpoints.HTTP, all...)}
		w.observe()
		w.pass(time.Minute)
		for _, address := range all {
			host, _, _ := strings.Cut(address, "@")
			w.take(1, func(r *accesslog.Record) { r.Tries[0].Address = []byte(host + ":80") })
		}
		if minute == 20 {
			before = heap()
		}
	}
	assert.Less(t, float64(heap()), 1.2*float64(before)+1e6)
	assert.LessOrEqual(t, len(w.of("web").Instances), 7*1000)
	w.services = []endpoints.Service{inConsul("web", endpoints.HTTP, "10.0.0.1")}
	w.observe()
	w.pass(time.Second)
	w.pass(DefaultLinger + forgetInterval)
	assert.Len(t, w.of("web").Instances, 1)
	w.services = nil
	w.observe()
	w.pass(time.Second)
	w.pass(DefaultLinger + forgetInterval)
	assert.Empty(t, w.counters.Services())
}

func TestIsError(t *testing.T) {
	for code, grpc := range map[string]string{"5xx": "", "2xx": "UNAVAILABLE", "4xx": "INTERNAL"} {
		assert.True(t, IsError(code, grpc), "%s %s", code, grpc)
	}
	for code, grpc := range map[string]string{"2xx": "", "4xx": "", "1xx": "OK", "3xx": "NONE", "other": "NOT_FOUND"} {
		assert.False(t, IsError(code, grpc), "%s %s", code, grpc)
	}
	assert.Len(t, statusNames, numStatuses)
	assert.True(t, Result{Result: "connect"}.IsError())
	assert.False(t, Result{Result: "cancelled"}.IsError())
}

func TestTakeAllocatesNothing(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.GRPC, "10.0.0.1@v1"))
	r := &accesslog.Record{Time: noon, Took: 5 * time.Millisecond, Service: []byte("web"), Route: []byte("*/web"), Status: 200,
		Tries: []accesslog.Try{lost("10.9.9.9:80", 502, false), answer("10.0.0.1:80", 200)}}
	w.counters.take(w.now, r)
	assert.Zero(t, testing.AllocsPerRun(100, func() { w.counters.take(w.now, r) }))
}

func BenchmarkTake(b *testing.B) {
	var services []endpoints.Service
	for n := range 1000 {
		services = append(services, inConsul(fmt.Sprintf("web%d", n), endpoints.GRPC, fmt.Sprintf("10.0.%d.%d@v1", n/250, n%250)))
	}
	w := newWorld(b, services...)
	records := make([]*accesslog.Record, len(services))
	for n := range records {
		name := fmt.Sprintf("web%d", n)
		records[n] = &accesslog.Record{Time: noon, Took: 5 * time.Millisecond, Service: []byte(name), Route: []byte("*/" + name), Status: 200,
			Tries: []accesslog.Try{answer(fmt.Sprintf("10.0.%d.%d:80", n/250, n%250), 200)}}
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		w.counters.take(w.now, records[n%len(records)])
	}
}
