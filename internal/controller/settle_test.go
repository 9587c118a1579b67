package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/nginx"
)

func TestGovernor(t *testing.T) {
	began := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		old  int
		max  time.Duration
		want time.Duration // after the start of the last reload
	}{
		{"no old worker: a second", 0, 30 * time.Second, time.Second},
		{"one: a second", 1, 30 * time.Second, time.Second},
		{"three: three seconds", 3, 30 * time.Second, 3 * time.Second},
		{"many: the maximum", 100, 30 * time.Second, 30 * time.Second},
		{"a second, even if less is configured", 100, time.Millisecond, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := governor{max: tt.max}
			assert.Zero(t, g.earliest())
			assert.False(t, g.mustCount(began), "no reload has left old workers")
			g.reload(began)
			g.count(began.Add(time.Second), tt.old)
			assert.Equal(t, tt.want, g.earliest().Sub(began))
			g.reload(began.Add(time.Hour))
			assert.Equal(t, time.Hour+time.Second, g.earliest().Sub(began), "counted again after each reload")
			g.undo()
			assert.Equal(t, time.Second, g.earliest().Sub(began))
		})
	}
}

func TestOldWorkersSlowReloadsDown(t *testing.T) {
	tests := []struct {
		name string
		old  func(elapsed time.Duration) int
		want []time.Duration // reloads in the first 20 s, of changes ten times a second
	}{
		{"none", func(time.Duration) int { return 0 }, []time.Duration{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}},
		{"three", func(time.Duration) int { return 3 }, []time.Duration{0, 3, 6, 9, 12, 15, 18}},
		{"more than the limit", func(time.Duration) int { return 100 }, []time.Duration{0}},
		{"old workers end", func(elapsed time.Duration) int {
			if elapsed < 5*time.Second {
				return 100
			}
			return 0
		}, []time.Duration{0, 5, 7, 9, 11, 13, 15, 17, 19}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.wait(time.Hour)
				start := time.Now()
				for n := range 200 {
					r.server.with(func() { r.server.old = make([]nginx.Process, tt.old(time.Since(start))) })
					r.say(fmt.Sprint(n))
					r.wait(100 * time.Millisecond)
				}
				var got []time.Duration
				r.server.with(func() {
					for _, a := range r.server.applied {
						got = append(got, (a.at-start.Sub(bubbleEpoch)).Round(time.Second)/time.Second)
					}
				})
				assert.Equal(t, tt.want, got)
				r.wait(time.Minute)
				hashes := r.server.hashes()
				assert.Equal(t, "199", hashes[len(hashes)-1])
			})
		})
	}
}

func TestStatusSaysThatOldWorkersDelayReloads(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server.old = []nginx.Process{
			{Retired: time.Now().Add(-time.Minute), Memory: 7 << 20},
			{Retired: time.Now().Add(-time.Hour), Memory: 7 << 20},
			{Retired: time.Now(), Memory: 7 << 20},
		}
		oldest := r.server.old[1].Retired
		r.say("a", entry("hello", 1))
		r.say("b", entry("hello", 2))
		next := time.Now().Add(3 * time.Second)
		r.wait(1500 * time.Millisecond)
		s := r.status()
		assert.Equal(t, Pending, s.State)
		assert.Equal(t, "3 old workers are still busy; the next reload is at "+next.Format(time.TimeOnly), s.Pending.Reason)
		assert.Equal(t, 3, s.Nginx.OldWorkers)
		assert.Equal(t, int64(21<<20), s.Nginx.OldWorkersMemory)
		assert.Equal(t, oldest, s.Nginx.OldWorkersSince)
		r.wait(2 * time.Second)
		assert.Equal(t, Serving, r.status().State)
	})
}

func TestAnOperatorDoesNotWaitForOldWorkers(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server.old = make([]nginx.Process, 50)
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		before := time.Now()
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		assert.Zero(t, time.Since(before))
	})
}
