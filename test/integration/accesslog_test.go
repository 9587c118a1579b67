package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// counted returns what lbctl has counted: the calls of hello, and the requests that have no line.
// Those can be lbctl's own, too.
func (s *system) counted(t *testing.T) (calls, lost int) {
	t.Helper()
	m, err := s.Metrics()
	require.NoError(t, err)
	for _, series := range m.Series("lbctl_requests_total", "service", hello) {
		calls += int(series.Counter.GetValue())
	}
	missing, _ := m.Value("lbctl_accesslog_lost_total")
	return calls, int(missing)
}

// countedOnce waits until each call is counted or lost, and checks that this stays so: after so many
// seconds lbctl knows what is lost.
func (s *system) countedOnce(t *testing.T, called, ownLost int) (calls, lost int) {
	t.Helper()
	since := time.Time{}
	s.Eventually(fmt.Sprintf("each of %d calls is counted", called), func() error {
		calls, lost = s.counted(t)
		if calls > called || calls+lost > called+ownLost {
			t.Fatalf("%d calls counted and %d lost, of %d", calls, lost, called)
		}
		if calls+lost < called {
			since = time.Time{}
			return fmt.Errorf("%d counted and %d lost, of %d", calls, lost, called)
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < 8*time.Second {
			return fmt.Errorf("%d counted and %d lost, of %d, but only since %s", calls, lost, called, time.Since(since))
		}
		return nil
	})
	return calls, lost
}

// unchanged returns what is counted and lost, once that stays so: after so many seconds lbctl knows.
func (s *system) unchanged(t *testing.T) (calls, lost int) {
	t.Helper()
	var since time.Time
	s.Eventually("the counts stay as they are", func() error {
		before := [2]int{calls, lost}
		if calls, lost = s.counted(t); before != [2]int{calls, lost} || since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < 8*time.Second {
			return fmt.Errorf("%d counted and %d lost since %s", calls, lost, time.Since(since))
		}
		return nil
	})
	return calls, lost
}

func TestEachRequestCountsOnce(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := alone(t, binary)
		s.backends(t, 1, 2)

		load := lbtest.StartLoad(t, s.GRPC, 8, 0)
		for range 4 {
			load.WaitMore(t, 500)
			s.KillLbctl()
			load.WaitMore(t, 200)
			s.StartLbctl()
		}
		s.WaitServing(hello, 2)
		load.WaitMore(t, 500)
		s.PauseLbctl()
		load.WaitMore(t, 2000)
		s.ContinueLbctl()
		s.Nginx().Reload() // the former workers write their lines too
		load.WaitMore(t, 500)
		result := load.Stop()
		lostNothing(t, result)
		calls, lost := s.countedOnce(t, result.Calls, 0)
		assert.Equal(t, []int{result.Calls, 0}, []int{calls, lost})
	})
}

// TestCallsWithoutRoomForTheirLines lets nginx write more than the log has room for, while lbctl is
// stopped.
func TestCallsWithoutRoomForTheirLines(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := alone(t, binary, "--access-log-size", "256k")
		s.backends(t, 1, 2)

		load := lbtest.StartLoad(t, s.GRPC, 8, 0)
		load.WaitMore(t, 200)
		s.PauseLbctl()
		load.WaitMore(t, 4000) // a line has more than 200 bytes
		s.ContinueLbctl()
		result := load.Stop()
		lostNothing(t, result)
		calls, lost := s.countedOnce(t, result.Calls, 10)
		assert.Positive(t, lost)
		assert.Greater(t, calls, 800)

		// It is no more than that, also for the next lbctl.
		load = lbtest.StartLoad(t, s.GRPC, 2, pause)
		load.WaitMore(t, 200)
		s.KillLbctl()
		load.WaitMore(t, 200)
		s.StartLbctl()
		s.WaitServing(hello, 2)
		more := load.Stop()
		lostNothing(t, more)
		again, stillLost := s.countedOnce(t, result.Calls+more.Calls, 10)
		assert.Equal(t, []int{calls + more.Calls, lost}, []int{again, stillLost})
	})
}

// TestALogInAnotherDirectory has nginx log to another directory for a while, in one run.
func TestALogInAnotherDirectory(t *testing.T) {
	t.Parallel() // it mostly waits
	binary := nginxtest.Binaries(t)[0]
	s := alone(t, binary)
	s.backends(t, 1, 2)
	called := 0
	call := func() {
		t.Helper()
		load := lbtest.StartLoad(t, s.GRPC, 4, 0)
		load.WaitMore(t, 1000)
		result := load.Stop()
		lostNothing(t, result)
		called += result.Calls
	}
	restart := func(args ...string) {
		t.Helper()
		s.StopLbctl()
		s.StartLbctl(args...)
		s.Eventually("nginx logs to the other directory", func() error {
			status, err := s.Status()
			if err == nil && status.State != controller.Serving {
				err = fmt.Errorf("the state is %q", status.Summary)
			}
			return err
		})
	}
	call()
	s.countedOnce(t, called, 0)
	restart("--access-log-dir", nginxtest.MemoryDir(t))
	elsewhere := called
	call()
	elsewhere = called - elsewhere
	restart()
	call()
	calls, lost := s.unchanged(t)
	assert.Equal(t, []int{called - elsewhere, 0}, []int{calls, lost})
}

// TestCallsOfAKilledNginx kills nginx with all its workers.
func TestCallsOfAKilledNginx(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := alone(t, binary)
		s.backends(t, 1, 2)
		load := lbtest.StartLoad(t, s.GRPC, 4, 0)
		for range 2 {
			load.WaitMore(t, 2000)
			s.Nginx().Kill()
			s.StartNginx()
		}
		s.WaitServing(hello, 2)
		load.WaitMore(t, 2000)
		result := load.Stop()
		answered := result.Calls - result.Failed()
		calls, lost := s.unchanged(t)
		assert.LessOrEqual(t, calls+lost, result.Calls)
		t.Logf("%d answered, %d counted, %d known to be lost", answered, calls, lost)

		// What is counted and lost from now on is exact again.
		load = lbtest.StartLoad(t, s.GRPC, 4, pause)
		load.WaitMore(t, 400)
		more := load.Stop()
		lostNothing(t, more)
		again, stillLost := s.unchanged(t)
		assert.Equal(t, []int{calls + more.Calls, lost}, []int{again, stillLost})
	})
}
