package traffic

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
)

// busy is a world with counts of all kinds.
func busy(t testing.TB) *world {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1@v1", "10.0.0.2@v2"), inConsul("cart", endpoints.GRPC, "10.0.1.1"), inConsul("idle", endpoints.HTTP, "10.0.2.1"))
	w.take(300, nil)
	w.take(2, func(r *accesslog.Record) {
		r.Took, r.Status, r.Tries = 2*time.Second, 503, []accesslog.Try{lost("10.0.0.1:80", 502, false), answer("10.0.0.2:80", 503)}
	})
	w.take(3, func(r *accesslog.Record) {
		r.Service, r.Route, r.GRPCStatus, r.Tries = []byte("cart"), []byte("*/cart"), 13, []accesslog.Try{answer("10.0.1.1:80", 200)}
	})
	w.take(1, func(r *accesslog.Record) { r.Status, r.OwnError, r.Tries = 429, 429, nil })
	w.take(1, func(r *accesslog.Record) { r.Route = []byte("*/gone") })
	w.take(4, func(r *accesslog.Record) { r.Service, r.Tries, r.OwnError = nil, nil, 404 })
	return w
}

func TestCountsGoOnInTheNextProcess(t *testing.T) {
	w := busy(t)
	want, unrouted := w.counters.Services(), w.counters.Unrouted()
	snapshot := w.counters.AppendSnapshot([]byte("head"))[4:]
	next := New(Options{Table: &w.table})
	require.NoError(t, next.Restore(snapshot))
	assert.Equal(t, want, next.Services())
	assert.Equal(t, unrouted, next.Unrouted())

	w.counters = next
	w.take(1, nil)
	want[2].Requests[0].Count++ // nothing else than the other process
	require.NoError(t, New(Options{Table: &w.table}).Restore(next.AppendSnapshot(nil)))
	third := New(Options{Table: &w.table})
	require.NoError(t, third.Restore(next.AppendSnapshot(nil)))
	assert.Equal(t, next.Services(), third.Services(), "counts that changed after a snapshot are in the next one")
}

func TestWhatHasLeftBeforeTheStartIsForgottenToo(t *testing.T) {
	w := busy(t)
	snapshot := w.counters.AppendSnapshot(nil)
	w.services = []endpoints.Service{inConsul("web", endpoints.HTTP, "10.0.0.1@v1")}
	w.observe()
	w.counters = New(Options{Table: &w.table})
	require.NoError(t, w.counters.Restore(snapshot))
	assert.Len(t, w.counters.Services(), 2, "not the idle one")
	w.now = time.Now()
	w.pass(DefaultLinger + forgetInterval)
	assert.Len(t, w.counters.Services(), 1)
	assert.Len(t, w.of("web").Instances, 1)
	assert.Len(t, w.of("web").Versions, 1)
}

func TestASnapshotThatCantBeRead(t *testing.T) {
	w := busy(t)
	good := w.counters.AppendSnapshot(nil)
	for cut := range good {
		c := New(Options{Table: &w.table})
		require.ErrorIs(t, c.Restore(good[:cut]), ErrSnapshot)
		for _, s := range c.Services() {
			require.Empty(t, s.Requests)
		}
	}
	require.ErrorIs(t, New(Options{Table: &w.table}).Restore(append([]byte{snapshotVersion + 1}, good[1:]...)), ErrSnapshot)
}

func FuzzRestore(f *testing.F) {
	f.Add(busy(f).counters.AppendSnapshot(nil))
	f.Fuzz(func(_ *testing.T, b []byte) {
		c := New(Options{Table: &fakeTable{}})
		if c.Restore(b) == nil {
			c.AppendSnapshot(nil)
			c.Services()
		}
	})
}

// BenchmarkSnapshot has 1,000 services with 10 instances each, all with requests.
func BenchmarkSnapshot(b *testing.B) {
	for name, changed := range map[string]int{"one service changed": 1, "all services changed": 1000} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			for n := range 1000 {
				var addresses []string
				for i := range 10 {
					addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d@v1", n/250, n%250, i))
				}
				w.services = append(w.services, inConsul(fmt.Sprintf("web%d", n), endpoints.GRPC, addresses...))
			}
			w.observe()
			w.pass(time.Second)
			requests := func(services int) {
				for n := range services {
					for i := range 10 {
						w.take(1, func(r *accesslog.Record) {
							r.Service, r.Route, r.GRPCStatus = fmt.Appendf(nil, "web%d", n), fmt.Appendf(nil, "*/web%d", n), 0
							r.Tries = []accesslog.Try{answer(fmt.Sprintf("10.%d.%d.%d:80", n/250, n%250, i), 200)}
						})
					}
				}
			}
			requests(1000)
			var buffer []byte
			for b.Loop() {
				for n := range changed {
					w.counters.services[fmt.Sprintf("web%d", n)].changed = true
				}
				buffer = w.counters.AppendSnapshot(buffer[:0])
			}
			b.ReportMetric(float64(len(buffer)), "bytes")
		})
	}
}

func BenchmarkServices(b *testing.B) {
	w := newWorld(b)
	for n := range 1000 {
		var addresses []string
		for i := range 10 {
			addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d@v1", n/250, n%250, i))
		}
		w.services = append(w.services, inConsul(fmt.Sprintf("web%d", n), endpoints.GRPC, addresses...))
	}
	w.observe()
	w.pass(time.Second)
	b.ReportAllocs()
	for b.Loop() {
		w.counters.Services()
	}
}
