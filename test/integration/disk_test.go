package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// TestDiskFull fills the disk of the state directory to the last byte.
func TestDiskFull(t *testing.T) {
	t.Parallel() // it mostly waits
	nginx := asking(t)
	disk := smallDisk(t)
	consul := consultest.Start(t)
	b := lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: nginx, StateDir: disk})
	s := &system{Balancer: b, agent: consul, consul: consul.Client()}
	s.backends(t, 1, 2)
	generation := s.settled(t, 1)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	fill(t, filepath.Join(disk, "rest"))
	s.backends(t, 3, 3) // delivery by DNS needs no disk
	answers := func() error {
		if load.First("server-3").IsZero() {
			return errors.New("not yet")
		}
		return nil
	}
	s.Eventually("the new server answers", answers)
	s.other(t, 1, "1.0")
	full := func() error {
		status, err := s.Status()
		if err != nil {
			return err
		}
		if status.State != controller.Degraded || status.Nginx.Generation != generation {
			return fmt.Errorf("%s: %s", status.State, status.Summary)
		}
		return problem(b, "no space left on device")
	}
	s.Eventually("status says that the disk is full", full)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())

	// Failed writes left the old files complete, so lbctl and nginx can start again.
	s.StopLbctl()
	s.Nginx().Stop()
	s.StartNginx()
	load = lbtest.StartLoad(t, s.GRPC, 2, pause)
	load.WaitMore(t, 100)
	s.StartLbctl()
	s.Eventually("status says that the disk is full", full)
	s.Eventually("the new server answers", answers)

	require.NoError(t, os.Remove(filepath.Join(disk, "rest")))
	s.WaitServing(other(1), 1)
	s.Eventually("there are no more problems", func() error {
		status, err := s.Status()
		if err == nil && len(status.Problems) > 0 {
			err = fmt.Errorf("%v", status.Problems)
		}
		return err
	})
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}

// smallDisk is a directory on a disk of its own, with room for two megabytes.
func smallDisk(t *testing.T) string {
	t.Helper()
	if !mayMount(t) {
		t.Skip("SKIPPED, NOT TESTED: only who has CAP_SYS_ADMIN can mount a small disk")
	}
	dir := nginxtest.Dir(t)
	require.NoError(t, syscall.Mount("none", dir, "tmpfs", 0, "size=2m,mode=755"))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func mayMount(t *testing.T) bool {
	t.Helper()
	const sysAdmin = 21 // CAP_SYS_ADMIN
	text, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "CapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	effective, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	require.NoError(t, err)
	return effective&(1<<sysAdmin) != 0
}

// fill makes a file that takes all free space.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
}
