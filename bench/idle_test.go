//go:build bench

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
)

// TestIdle measures what lbctl costs while nothing happens: its memory, and its
// share of a core over half a minute, with one service of four instances.
func TestIdle(t *testing.T) {
	const span = 30 * time.Second
	cluster := consultest.StartCluster(t, 3)
	agent := cluster.StartClient()
	b := lbtest.Start(t, lbtest.Options{Consul: agent.Addr, Nginx: nginx(t)})
	for i := range 4 {
		lbtest.StartBackend(t, fmt.Sprintf("server-%d", i)).Register(t, agent.Client(), service)
	}
	b.WaitServing(service, 4)

	before := ticks(t, b.PID())
	time.Sleep(span)
	used := float64(ticks(t, b.PID())-before) / 100 // USER_HZ is 100 wherever Linux runs
	fmt.Printf("\nlbctl idle: %.1f MiB resident, %.2f %% of a core over %s\n\n", resident(t, b.PID()), 100*used/span.Seconds(), span)
}

// ticks is the processor time a process has used.
func ticks(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	require.NoError(t, err)
	system, err := strconv.Atoi(fields[12])
	require.NoError(t, err)
	return user + system
}

// resident is a process's resident set, in MiB.
func resident(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			require.NoError(t, err)
			return float64(kb) / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
