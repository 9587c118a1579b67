package controller

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// fakeEndpoints is a resolver whose nginx asks when the test says so.
type fakeEndpoints struct {
	mu        sync.Mutex
	upstreams map[string][]resolver.Target // nil: told nothing yet
	untaken   map[string]time.Time
	taken     chan struct{}
	restarted int
}

func (f *fakeEndpoints) Set(upstreams map[string][]resolver.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, targets := range upstreams {
		if known, ok := f.upstreams[name]; !ok || !slices.Equal(known, targets) {
			f.untaken[name] = time.Now()
		}
	}
	f.upstreams = maps.Clone(upstreams)
}

func (f *fakeEndpoints) Untaken() map[string]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.untaken)
}

func (f *fakeEndpoints) Taken() <-chan struct{} { return f.taken }

func (f *fakeEndpoints) Restarted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restarted++
}

func (f *fakeEndpoints) restarts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restarted
}

// take is nginx fetching the servers of all upstreams.
func (f *fakeEndpoints) take() {
	f.mu.Lock()
	clear(f.untaken)
	f.mu.Unlock()
	f.taken <- struct{}{}
	time.Sleep(lookPause)
	synctest.Wait()
}

// asking is bubble with an nginx that asks for its servers.
func asking(t *testing.T, test func(r *rig, f *fakeEndpoints)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, dir: dir, server: newFakeServer(), source: newFakeSource()}
		f := newFakeEndpoints()
		r.asks = f
		r.run()
		defer func() { r.end() }()
		test(r, f)
	})
}

func newFakeEndpoints() *fakeEndpoints {
	return &fakeEndpoints{untaken: map[string]time.Time{}, taken: make(chan struct{}, 1)}
}

// servers delivers so many instances of hello, which are no other files than any
// other number of them.
func (r *rig) servers(instances int) {
	const name = "grpc-hello"
	var targets []resolver.Target
	for n := range instances {
		targets = append(targets, resolver.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(7000+n)), Weight: 1})
	}
	files := resolver.Host(name)
	r.source.updates <- render.Configuration{
		Hash:      "hello",
		Files:     map[string][]byte{"nginx.conf": []byte(files)},
		Entries:   []endpoints.Entry{entry("hello", instances)},
		Upstreams: map[string][]resolver.Target{name: targets},
	}
	synctest.Wait()
}

func TestInstancesAreNoGeneration(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		assert.Equal(t, Serving, r.status().State)

		r.servers(3)
		s := r.status()
		assert.Equal(t, Pending, s.State, s.Summary)
		assert.Equal(t, []string{"grpc-hello"}, s.Endpoints.Untaken)
		r.wait(2 * time.Second)
		assert.Equal(t, Pending, r.status().State, "nginx has not asked yet")
		f.take()
		s = r.status()
		assert.Equal(t, Serving, s.State, s.Summary)
		assert.Equal(t, 3, s.Instances)
		assert.Equal(t, []string{"applied 1", "moved 1"}, r.events())
		moved := r.c.History()[0]
		assert.Equal(t, "hello +2", moved.Change)
		assert.InDelta(t, 2, moved.TookSeconds, 0.06, "since Consul's answer")
	})
}

func TestServersThatNginxDoesNotFetchAreAProblem(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.servers(2)
		r.wait(askPatience - time.Second)
		assert.Empty(t, r.status().Problems)
		r.wait(2 * time.Second)
		problems := r.status().Problems
		if assert.Len(t, problems, 1) {
			assert.Contains(t, problems[0].Message, `it has not fetched the newest servers of 1 upstream, among them "grpc-hello"`)
		}
		f.take()
		assert.Empty(t, r.status().Problems)
	})
}

func TestServersThatNginxStartedWithAreDroppedOnceItHasAskedForAll(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.server.with(func() { r.server.seeded = true })
		r.servers(1)
		assert.Equal(t, map[string]string{"grpc-hello": "server 10.0.0.1:7000 weight=1 max_fails=0;\n"}, r.server.seedsNow())
		r.wait(time.Minute)
		assert.Zero(t, r.server.reloaded(), "it has not asked yet")
		r.servers(2)
		r.wait(time.Minute)
		f.take()
		assert.Equal(t, 1, r.server.reloaded())
		r.wait(time.Minute)
		assert.Equal(t, 1, r.server.reloaded(), "once is enough")
	})
}

func TestDroppingServersIsOneReloadASecond(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.server.with(func() { r.server.seeded = true })
		r.servers(1) // which is a reload
		f.take()
		assert.Zero(t, r.server.reloaded())
		r.wait(3 * time.Second)
		assert.Equal(t, 1, r.server.reloaded())
	})
}

func TestServersThatNginxStartedWithStayWhileNobodyKnowsBetter(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(2)
		f.take()
		r.wait(time.Minute)
		seeds := r.server.seedsNow()
		assert.NotEmpty(t, seeds)

		// lbctl and nginx start again, with Consul away.
		again := newFakeEndpoints()
		r.asks = again
		r.server.with(func() { r.server.seeded = true })
		r.restart()
		r.source.status.Entries = []endpoints.Entry{entry("hello", 5)}
		r.wait(time.Minute)
		assert.Equal(t, 5, r.status().Instances, "what an earlier lbctl knew")
		assert.Equal(t, seeds, r.server.seedsNow(), "what an earlier lbctl wrote")
		assert.Zero(t, r.server.reloaded(), "nginx has no other servers")

		r.servers(1)
		again.take()
		r.wait(time.Minute)
		assert.Equal(t, 1, r.server.reloaded())
		assert.NotEqual(t, seeds, r.server.seedsNow())
	})
}

func TestSeedsThatCantBeWrittenAreTriedAgain(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		r.server.with(func() { r.server.seedsFail = errors.New("no space left on device") })
		r.servers(2)
		f.take()
		problems := r.status().Problems
		if assert.Len(t, problems, 1) {
			assert.Contains(t, problems[0].Message, "no space left on device")
		}
		r.wait(time.Minute)
		r.server.with(func() { r.server.seedsFail = nil })
		r.wait(time.Minute)
		assert.Empty(t, r.status().Problems)
		assert.Contains(t, r.server.seedsNow()["grpc-hello"], "10.0.0.1:7001")
		assert.Equal(t, []string{"applied 1", "moved 1"}, r.events())
	})
}

func TestAnotherMasterHasNoServersYet(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		assert.Zero(t, f.restarts())
		for n := 1; n <= 2; n++ {
			r.server.with(func() { r.server.master.PID = 7 + n })
			r.wait(10 * time.Second)
			assert.Equal(t, n, f.restarts(), fmt.Sprintf("restart %d", n))
		}
	})
}

func TestInstancesComeAndGoWhileAGenerationIsPinned(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		_, err := r.c.Rollback(r.Context(), 1)
		assert.NoError(t, err)
		r.servers(4)
		f.take()
		s := r.status()
		assert.Equal(t, Frozen, s.State, s.Summary)
		assert.Equal(t, 4, s.Instances)
		assert.Equal(t, []string{"applied 1", "rollback 1", "moved 1"}, r.events())
	})
}
