package traffic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
)

// overview returns what Overview would return at the world's time.
func (w *world) overview() Overview {
	w.counters.mu.Lock()
	defer w.counters.mu.Unlock()
	w.counters.advance(w.now)
	return w.counters.overview()
}

func (w *world) recently() []Recent { return w.overview().Services }

func TestOverview(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"), inConsul("api", endpoints.HTTP, "10.0.1.1"))
	w.take(80, nil)
	w.take(20, func(r *accesslog.Record) {
		r.Service, r.Status, r.Took, r.Tries = []byte("api"), 503, 800*time.Millisecond, nil
	})
	w.pass(5 * time.Second)
	o := w.overview()
	assert.Equal(t, w.now.Truncate(StepDuration), o.End.In(w.now.Location()))
	require.Len(t, o.Services, 2)
	last := o.All.Points[len(o.All.Points)-1]
	assert.Equal(t, []float64{20, 4}, []float64{last.Requests, last.Errors})
	assert.InDelta(t, 0.005, o.All.P50, 0.001)
	assert.InDelta(t, 0.8, o.All.P99, 0.1)
	assert.InDelta(t, 0.8, o.Services[0].P50, 0.1, "of %s", o.Services[0].Service)
	assert.InDelta(t, 0.005, o.Services[1].P99, 0.001)

	w.pass(time.Minute)
	o = w.overview()
	assert.Equal(t, []float64{-1, -1}, []float64{o.All.P50, o.All.P99})
	assert.Zero(t, o.All.Points[len(o.All.Points)-1].Requests)
}

func TestRecent(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1", "10.0.0.2"), inConsul("idle", endpoints.HTTP, "10.0.1.1"))
	assert.Empty(t, w.recently())
	slow := func(r *accesslog.Record) {
		r.Status, r.Took, r.Tries = 503, 800*time.Millisecond, []accesslog.Try{answer("10.0.0.2:80", 503)}
		r.Tries[0].Took = r.Took
	}
	w.take(90, nil)
	w.take(10, slow)
	w.pass(5 * time.Second)
	w.take(5, nil)
	w.pass(10 * time.Second)

	all := w.recently()
	require.Len(t, all, 1)
	assert.Equal(t, "web", all[0].Service)
	require.Len(t, all[0].Points, 3)
	first := all[0].Points[0]
	assert.Equal(t, []float64{20, 2}, []float64{first.Requests, first.Errors})
	assert.InDelta(t, 0.005, first.P50, 0.001)
	assert.InDelta(t, 0.8, first.P99, 0.1)
	assert.Equal(t, 1.0, all[0].Points[1].Requests)
	assert.Equal(t, Point{P50: -1, P99: -1}, all[0].Points[2])

	require.Len(t, all[0].Instances, 2)
	one, two := all[0].Instances[0], all[0].Instances[1]
	assert.Equal(t, []any{"10.0.0.1:80", 95.0 / 60, 0.0}, []any{one.Endpoint, one.Requests, one.Errors})
	assert.Equal(t, []any{"10.0.0.2:80", 10.0 / 60, 10.0 / 60}, []any{two.Endpoint, two.Requests, two.Errors})
	assert.InDelta(t, 95.0/105, one.Share, 1e-9)
	assert.InDelta(t, 0.8, two.P99, 0.1)

	w.pass(time.Minute)
	all = w.recently()
	assert.Zero(t, all[0].Instances[0].Requests)
	assert.Equal(t, -1.0, all[0].Instances[0].P99)
	assert.Len(t, all[0].Points, 15)
	w.pass(10 * time.Minute)
	all = w.recently()
	require.Len(t, all[0].Points, recentSteps)
	for _, p := range all[0].Points {
		assert.Equal(t, Point{P50: -1, P99: -1}, p)
	}
}

// TestFirstStepOfAnInstance begins at each step of a minute.
func TestFirstStepOfAnInstance(t *testing.T) {
	for n := range instanceSteps {
		w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"))
		w.pass(time.Duration(n) * StepDuration)
		w.take(60, nil)
		w.pass(StepDuration)
		assert.Equal(t, 1.0, w.recently()[0].Instances[0].Requests, "step %d", n)
		w.pass(10 * StepDuration)
		assert.Equal(t, 1.0, w.recently()[0].Instances[0].Requests, "step %d", n)
		w.pass(StepDuration)
		assert.Zero(t, w.recently()[0].Instances[0].Requests, "step %d", n)
	}
}

func TestOldRequestsAreNotRecent(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"))
	w.take(1, nil)
	w.take(7, func(r *accesslog.Record) { r.Time = noon.Add(-20 * time.Second) })
	w.pass(5 * time.Second)
	assert.Equal(t, 0.2, w.recently()[0].Points[0].Requests)
	assert.Equal(t, uint64(8), w.of("web").Requests[0].Count)
}

func TestAClockThatIsSetBack(t *testing.T) {
	w := newWorld(t, inConsul("web", endpoints.HTTP, "10.0.0.1"))
	w.take(1, nil)
	w.pass(time.Minute)
	w.pass(-time.Hour)
	w.take(1, nil)
	w.pass(5 * time.Second)
	points := w.recently()[0].Points
	assert.Equal(t, 0.2, points[len(points)-1].Requests)
}

func TestQuantiles(t *testing.T) {
	var h fine
	assert.Equal(t, -1.0, h.quantile(0.5))
	for ms := range 10_000 {
		h.observe(time.Duration(ms) * time.Millisecond)
	}
	for _, q := range []float64{0.1, 0.5, 0.9, 0.99} {
		assert.InEpsilon(t, 10*q, h.quantile(q), 0.13, q)
	}
	h.observe(100 * time.Hour)
	assert.LessOrEqual(t, h.quantile(1), 16_800.0)
	for n := range len(h) {
		var one fine
		one.observe(time.Duration(h.lower(n)) * time.Millisecond)
		assert.Equal(t, uint32(1), one[n], "bucket %d begins at %v ms", n, h.lower(n))
	}
}
