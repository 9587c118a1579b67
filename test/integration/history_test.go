package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAChangeWhileLbctlIsAwayIsInTheHistory takes one of two instances out of rotation while
// lbctl is killed, and back into it later.
func TestAChangeWhileLbctlIsAwayIsInTheHistory(t *testing.T) {
	s := start(t, asking(t))
	s.backends(t, 1, 2)
	s.WaitServing(hello, 2)
	s.settled(t, 1)
	s.Eventually("the snapshot has both instances", func() error {
		snapshot, err := os.ReadFile(filepath.Join(s.StateDir, "endpoints.json"))
		if err == nil && !bytes.Contains(snapshot, []byte(hello+"-server-2")) {
			err = fmt.Errorf("%s", snapshot)
		}
		return err
	})
	s.KillLbctl()
	require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-server-1", "test"))
	s.StartLbctl()
	s.WaitServing(hello, 1)
	history := s.inHistory(t, hello+" -1")
	assert.Contains(t, s.Log(), `change="`+hello+` -1"`)

	require.NoError(t, s.consul.Agent().DisableServiceMaintenance(hello+"-server-1"))
	s.WaitServing(hello, 2)
	s.inHistory(t, hello+" +1")
	for began := time.Now(); time.Since(began) < 3*time.Second; { // its slow start takes ten
		out, err := s.Lbctl("status", "--wait", "100ms")
		require.NoError(t, err, out)
	}
	out, err := s.Lbctl("history")
	require.NoError(t, err)
	assert.Equal(t, strings.Count(history, "\n")+1, strings.Count(out, "\n"), "one more event: %s", out)
}

// inHistory waits for a change in the history, and returns the history.
func (s *system) inHistory(t *testing.T, change string) (history string) {
	t.Helper()
	s.Eventually("the history has the change", func() (err error) {
		if history, err = s.Lbctl("history"); err == nil && !strings.Contains(history, change) {
			err = fmt.Errorf("%s", history)
		}
		return err
	})
	return history
}
