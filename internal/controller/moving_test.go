package controller

import (
	"cmp"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// instancesOf delivers services whose servers have the weights that their entries say.
func (r *rig) instancesOf(entries ...endpoints.Entry) {
	cfg := render.Configuration{
		Hash:      cmp.Or(r.hash, "same"),
		Files:     map[string][]byte{"nginx.conf": []byte(cmp.Or(r.hash, "same"))},
		Entries:   entries,
		Upstreams: map[string][]resolver.Target{},
	}
	for _, e := range entries {
		upstream := render.UpstreamName(e.Protocol, e.Name)
		for _, i := range e.Rotation() {
			cfg.Upstreams[upstream] = append(cfg.Upstreams[upstream], resolver.Target{
				Addr: netip.AddrPortFrom(netip.MustParseAddr(i.Address), uint16(i.Port)), Weight: uint16(i.Weight),
			})
		}
	}
	r.source.updates <- cfg
	synctest.Wait()
}

// rising returns a service with n instances, of which the last is in slow start.
func rising(name string, n int, share float64) endpoints.Entry {
	e := entry(name, n)
	last := e.Instances[n-1]
	e.Ramps = []endpoints.Ramp{{Node: last.Node, ID: last.ID, Share: share}}
	return e
}

func TestStepsOfASlowStartAreNotPending(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(entry("hello", 1), entry("web", 1))
		f.take()
		r.wait(time.Minute)

		r.instancesOf(rising("hello", 2, 0.1), entry("web", 1))
		s := r.status()
		assert.Equal(t, Pending, s.State, "an added instance is pending: %s", s.Summary)
		assert.Equal(t, "hello +1", s.Pending.Change)
		f.take()
		assert.Equal(t, Serving, r.status().State)

		for _, share := range []float64{0.2, 0.5, 0.9} {
			r.instancesOf(rising("hello", 2, share), entry("web", 1))
			s = r.status()
			assert.Equal(t, Serving, s.State, s.Summary)
			r.wait(time.Second)
			assert.Equal(t, Serving, r.status().State, "nginx has not asked yet")
		}
		r.instancesOf(entry("hello", 2), entry("web", 1))
		assert.Equal(t, Serving, r.status().State, "the end of the slow start")
		f.take()
		assert.Equal(t, []string{"applied 1", "moved 1"}, r.events(), "one entry for the return")
		assert.Equal(t, "hello +1", r.c.History()[0].Change)
	})
}

func TestAnotherChangeDoesNotWaitForASlowStart(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(rising("hello", 2, 0.1), entry("web", 2))
		f.take()
		r.wait(time.Minute)

		r.instancesOf(rising("hello", 2, 0.2), entry("web", 2))
		r.wait(time.Minute)
		r.instancesOf(rising("hello", 2, 0.3), entry("web", 1))
		s := r.status()
		assert.Equal(t, Pending, s.State, "a removed instance is pending: %s", s.Summary)
		assert.Equal(t, "web -1", s.Pending.Change)
		assert.Less(t, time.Since(s.Pending.Since), time.Second, "since the removal, not since the step")
		f.takes("grpc-web")
		r.wait(2 * time.Second)
		assert.Equal(t, Serving, r.status().State, "nginx has yet to fetch only a weight")
		moved := r.c.History()[0]
		assert.Equal(t, "web -1", moved.Change)
		assert.Less(t, moved.TookSeconds, 3.0)
	})
}

func TestAWeightInConsulIsPending(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(rising("hello", 2, 0.1))
		f.take()
		r.wait(time.Minute)
		heavy := rising("hello", 2, 0.1)
		heavy.Instances[0].Weight = 5
		r.instancesOf(heavy)
		assert.Equal(t, Pending, r.status().State)
		f.take()
		assert.Equal(t, "hello 1 with a new weight", r.c.History()[0].Change)
	})
}

func TestAnUnfetchedStepReloadsASilentNginx(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(rising("hello", 2, 0.1))
		f.take()
		r.wait(time.Minute)
		f.silent = true
		r.instancesOf(entry("hello", 2))
		r.wait(time.Minute)
		assert.Equal(t, 1, r.server.reloaded())
	})
}

// restartWith starts another lbctl whose snapshot has the entries.
func (r *rig) restartWith(f *fakeEndpoints, entries ...endpoints.Entry) {
	r.end()
	r.asks = f
	r.source = newFakeSource()
	r.source.tell(func(s *render.Status) { s.Entries = entries })
	r.run()
}

func TestAChangeFromBeforeTheStartIsInTheHistory(t *testing.T) {
	for name, tt := range map[string]struct {
		now  []endpoints.Entry
		want []string
	}{
		"an instance left":    {[]endpoints.Entry{entry("hello", 2), entry("web", 2)}, []string{"applied 1", "moved 1"}},
		"nothing changed":     {[]endpoints.Entry{entry("hello", 3), entry("web", 2)}, []string{"applied 1"}},
		"only a slow start's": {[]endpoints.Entry{rising("hello", 3, 0.5), entry("web", 2)}, []string{"applied 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			asking(t, func(r *rig, f *fakeEndpoints) {
				was := []endpoints.Entry{entry("hello", 3), entry("web", 2)}
				r.instancesOf(was...)
				f.take()
				r.wait(time.Minute)

				again := newFakeEndpoints()
				r.restartWith(again, was...)
				r.instancesOf(tt.now...)
				s := r.status()
				assert.Equal(t, Pending, s.State, "nginx has not asked this lbctl yet: %s", s.Summary)
				if len(tt.want) > 1 {
					assert.Equal(t, "hello -1", s.Pending.Change)
				} else {
					assert.Equal(t, instancesChange, s.Pending.Change)
				}
				again.take()
				assert.Equal(t, Serving, r.status().State)
				assert.Equal(t, tt.want, r.events())
				if len(tt.want) > 1 {
					assert.Equal(t, "hello -1", r.c.History()[0].Change)
					assert.Contains(t, r.log.String(), `msg="servers fetched by nginx" generation=1`)
				}

				r.instancesOf(entry("hello", 4), entry("web", 2))
				again.take()
				assert.Contains(t, r.c.History()[0].Change, "hello +", "the next change")
			})
		})
	}
}

func TestAChangeFromBeforeTheStartWhileAGenerationIsPinned(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.instancesOf(entry("hello", 3))
		f.take()
		r.wait(time.Minute)
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)

		again := newFakeEndpoints()
		r.restartWith(again, entry("hello", 3), entry("new", 1))
		r.hash = "other"
		r.instancesOf(entry("hello", 2), entry("new", 1))
		again.take()
		assert.Equal(t, []string{"applied 1", "rollback 1", "moved 1"}, r.events())
		assert.Equal(t, "hello -1", r.c.History()[0].Change, "nginx doesn't ask for the service new")
	})
}
