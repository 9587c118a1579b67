package controller

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// answer delivers a configuration with an answer of Consul that came some time ago.
func (r *rig) answer(hash string, ago time.Duration) {
	r.source.updates <- render.Configuration{
		Hash:  hash,
		Files: map[string][]byte{"nginx.conf": []byte(hash)},
		Seen:  time.Now().Add(-ago),
	}
	synctest.Wait()
}

func (r *rig) reloads() map[Reload]uint64 { return r.c.Counts().Reloads }

func TestConvergenceEndsWhenTheGenerationIsServed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server.with(func() { r.server.takes = 300 * time.Millisecond })
		r.answer("a", 50*time.Millisecond)
		assert.Zero(t, r.c.Counts().Convergence.Count(), "nginx is being reloaded")
		assert.Zero(t, r.c.Counts().Succeeded)
		r.wait(time.Second)
		got := r.c.Counts()
		assert.Equal(t, uint64(1), got.Convergence.Count())
		assert.Equal(t, 350*time.Millisecond, got.Convergence.Sum)
		assert.Equal(t, 300*time.Millisecond, got.ReloadDuration.Sum)
		assert.Equal(t, map[Reload]uint64{{ReloadChange, ReloadSucceeded}: 1}, got.Reloads)
		assert.Equal(t, 700*time.Millisecond, time.Since(got.Succeeded))
	})
}

func TestConvergenceIsThatOfTheOldestAnswer(t *testing.T) {
	bubble(t, func(r *rig) {
		r.answer("a", 0)
		r.wait(500 * time.Millisecond)
		before := r.c.Counts()
		start := time.Now()
		for n := range 3 {
			r.answer(fmt.Sprint(n), 0)
			r.wait(50 * time.Millisecond)
		}
		r.wait(time.Minute)
		require.Equal(t, []string{"a", "2"}, r.server.hashes())
		got := r.c.Counts()
		assert.Equal(t, uint64(2), got.Coalesced-before.Coalesced, "the first two were never applied")
		assert.Equal(t, before.Convergence.Count()+1, got.Convergence.Count())
		took := got.Convergence.Sum - before.Convergence.Sum
		assert.Equal(t, bubbleEpoch.Add(r.server.applied[1].at).Sub(start), took, "since the first of them")
		assert.GreaterOrEqual(t, took, 300*time.Millisecond)
	})
}

func TestConvergenceGoesOnOverAttempts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.answer("a", 0)
		r.wait(time.Minute)
		r.server.with(func() { r.server.fail = func(string) error { return nginx.ErrRejected } })
		before := r.c.Counts().Convergence.Sum
		start := time.Now()
		r.answer("b", 0)
		require.True(t, r.c.Counts().Failing)
		r.server.with(func() { r.server.fail = nil })
		r.wait(time.Minute)
		got := r.c.Counts()
		assert.False(t, got.Failing)
		assert.Equal(t, map[Reload]uint64{
			{ReloadChange, ReloadSucceeded}: 1, {ReloadChange, ReloadRejected}: 1, {ReloadRetry, ReloadSucceeded}: 1,
		}, got.Reloads)
		assert.Equal(t, uint64(2), got.Convergence.Count())
		assert.Equal(t, got.Succeeded.Sub(start), got.Convergence.Sum-before)
		assert.NotZero(t, got.Convergence.Sum-before)
	})
}

func TestConvergenceLeavesOutWhatIsServedAlready(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.server.with(func() { r.server.takes = 300 * time.Millisecond })
		r.answer("b", 0)
		r.wait(time.Minute)
		r.answer("c", 0) // waits no longer than it takes to go back
		r.restart()
		r.answer("c", time.Hour)
		r.wait(time.Minute)
		r.say("d")
		r.wait(time.Minute)
		assert.Equal(t, "d", r.server.hashes()[len(r.server.hashes())-1])
		assert.Zero(t, r.c.Counts().Convergence.Count(), "nginx had c already, and d is no answer of Consul")
		assert.NotZero(t, r.c.Counts().Succeeded)
	})
}

func TestConvergenceLeavesOutWhatAnOperatorHasWait(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.wait(time.Minute)
		r.say("b")
		r.wait(time.Minute)
		_, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		r.answer("c", 0)
		r.wait(time.Hour)
		require.NoError(t, r.c.Resume(r.Context()))
		r.wait(time.Minute)
		assert.Equal(t, "c", r.server.hashes()[2])
		assert.Zero(t, r.c.Counts().Convergence.Count())
		assert.Equal(t, map[Reload]uint64{
			{ReloadChange, ReloadSucceeded}: 3, {ReloadRollback, ReloadSucceeded}: 1,
		}, r.reloads())
	})
}

func TestReloadsByOutcome(t *testing.T) {
	for _, tt := range []struct {
		outcome ReloadOutcome
		err     error
	}{
		{ReloadRejected, fmt.Errorf("%w: unknown directive", nginx.ErrRejected)},
		{ReloadRolledBack, fmt.Errorf("generation 2: %w to 1: no", nginx.ErrRolledBack)},
		{ReloadNoWayBack, fmt.Errorf("generation 2: %w: no", nginx.ErrDegraded)},
		{ReloadNotRunning, fmt.Errorf("generation 2 waits: %w", nginx.ErrNotRunning)},
		{ReloadFailed, fmt.Errorf("store: %w", nginx.ErrStore)},
	} {
		t.Run(string(tt.outcome), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.say("a")
				r.server.with(func() { r.server.fail = func(string) error { return tt.err } })
				r.wait(time.Minute)
				r.answer("b", 0)
				got := r.reloads()
				maps.DeleteFunc(got, func(k Reload, _ uint64) bool { return k.Outcome == ReloadSucceeded })
				assert.Equal(t, map[Reload]uint64{{ReloadChange, tt.outcome}: 1}, got)
				assert.Equal(t, uint64(0), r.c.Counts().Convergence.Count())
			})
		})
	}
	assert.Len(t, ReloadOutcomes(), 6)
}

func TestDriftIsAReasonOfReloads(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.say("b")
		r.wait(time.Minute)
		r.server.with(func() { r.server.serving = 1 })
		r.wait(time.Minute)
		assert.Equal(t, uint64(1), r.reloads()[Reload{ReloadDrift, ReloadSucceeded}])
	})
}

func TestReloadsForServers(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		r.server.start("grpc-hello")
		f.take()
		r.wait(time.Minute)
		assert.Equal(t, uint64(1), r.reloads()[Reload{ReloadBootstrap, ReloadSucceeded}])

		f.mu.Lock()
		f.silent = true
		f.mu.Unlock()
		r.servers(2)
		r.wait(time.Minute)
		assert.Equal(t, uint64(1), r.reloads()[Reload{ReloadSilent, ReloadSucceeded}])
	})
}

func TestServersThatNginxFetchesAreASuccess(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		r.wait(time.Minute)
		before := r.c.Counts().Succeeded
		r.servers(3)
		r.wait(time.Second)
		assert.Equal(t, before, r.c.Counts().Succeeded, "nginx has not fetched them")
		f.take()
		assert.Less(t, time.Since(r.c.Counts().Succeeded), time.Second)
	})
}

func TestEndpointsGetTheTimeOfConsulsAnswer(t *testing.T) {
	asking(t, func(r *rig, f *fakeEndpoints) {
		r.servers(1)
		f.take()
		assert.Zero(t, f.seen)
		r.source.seen = time.Now().Add(-time.Second)
		r.servers(2)
		assert.Equal(t, r.source.seen, f.seen)
	})
}
