package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestScalingLosesNoCall(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := start(t, nginx)
		s.backends(t, 1, 1)
		load := lbtest.StartLoad(t, s.GRPC, 4, pause)
		load.WaitMore(t, 50)

		more := s.backends(t, 2, 5)
		for i := 1; i <= 5; i++ {
			name := fmt.Sprintf("server-%d", i)
			s.Eventually(name+" answers", func() error {
				if load.First(name).IsZero() {
					return fmt.Errorf("not yet")
				}
				return nil
			})
		}

		var leaving sync.WaitGroup
		for _, b := range more[:3] {
			leaving.Go(func() { b.Leave(t, s.consul, hello, 3*time.Second) })
		}
		leaving.Wait()
		s.WaitServing(hello, 2)
		load.WaitMore(t, 50)
		lostNothing(t, load.Stop())
	})
}

func TestKilledServerLosesOnlyCallsInFlight(t *testing.T) {
	s := start(t, newest(t))
	all := s.backends(t, 1, 3)
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)
	load.WaitMore(t, 100)

	all[0].Kill()
	s.WaitServing(hello, 2)
	load.WaitMore(t, 100)
	result := load.Stop()
	// Four callers can have at most four calls in flight on it.
	assert.LessOrEqual(t, result.Failed(), 4, "%v", result.Failures)
}

func TestNginxStopsAndStarts(t *testing.T) {
	s := start(t, newest(t))
	s.backends(t, 1, 1)

	s.Nginx().KillMaster()
	s.Eventually("lbctl notices that nginx is gone", func() error {
		status, err := s.Status()
		if err == nil && status.Nginx.Running {
			err = fmt.Errorf("%s", status.Summary)
		}
		return err
	})
	s.StartNginx()
	s.WaitServing(hello, 1)
	load := lbtest.StartLoad(t, s.GRPC, 1, pause)
	load.WaitMore(t, 20)
	lostNothing(t, load.Stop())
}

func TestRestartOfLbctlIsNotNoticed(t *testing.T) {
	s := start(t, newest(t))
	s.backends(t, 1, 2)
	before, err := s.Status()
	require.NoError(t, err)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	s.StopLbctl()
	load.WaitMore(t, 50)
	s.StartLbctl()
	s.WaitServing(hello, 2)
	s.KillLbctl()
	s.StartLbctl()
	s.WaitServing(hello, 2)

	after, err := s.Status()
	require.NoError(t, err)
	assert.Equal(t, before.Nginx.Generation, after.Nginx.Generation, "nothing has changed, so there is no new generation")
	s.backends(t, 3, 3)
	lostNothing(t, load.Stop())
}
