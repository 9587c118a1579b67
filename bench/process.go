//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/testlog"
)

// startProcess runs a program until the test ends. Its output goes to dir/name.log; a
// test that fails shows it. The program is ended with SIGTERM, and then the rest of its
// process group with SIGKILL.
func startProcess(t *testing.T, dir, name string, command ...string) (pid int) {
	t.Helper()
	path := filepath.Join(dir, name+".log")
	log, err := os.Create(path)
	require.NoError(t, err)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = 100 * time.Millisecond
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer log.Close()
		runtime.LockOSThread() // Pdeathsig takes effect when the starting thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(ended)
		}
	}()
	require.NoError(t, <-started, "start %s", name)
	t.Cleanup(func() {
		syscall.Kill(cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		testlog.Show(t, name+", its end", func() string {
			text, _ := os.ReadFile(path)
			return string(text[max(0, len(text)-4000):])
		})
	})
	return cmd.Process.Pid
}

// family is the processes with the given ids and all that descend from them.
func family(pids ...int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if fields := stat(pid); fields != nil { // nil: it has ended meanwhile
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	for i := 0; i < len(pids); i++ { // the loop appends to pids
		pids = append(pids[:len(pids):len(pids)], children[pids[i]]...)
	}
	return pids
}

// children are the children of a process with a single thread.
func children(pid int) []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // empty when it has ended
	var pids []int
	for word := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(word); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// stat are the fields of /proc/PID/stat from the state on; nil when the process has
// ended.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// cpuTime is the processor time that processes and their descendants have used. It
// includes descendants that have ended and were waited for.
func cpuTime(pids ...int) time.Duration {
	var sum time.Duration
	for _, pid := range family(pids...) {
		sum += ownTime(pid) + endedTime(pid)
	}
	return sum
}

// ownTime is the processor time that one process has used. That of a process with one thread,
// such as a worker of nginx, is exact.
func ownTime(pid int) time.Duration {
	if threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); len(threads) == 1 {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			nanoseconds, _ := strconv.ParseInt(fields[0], 10, 64)
			return time.Duration(nanoseconds)
		}
	}
	return ticks(pid, 11, 12) // utime, stime
}

// endedTime is the processor time of a process's descendants that have ended.
func endedTime(pid int) time.Duration { return ticks(pid, 13, 14) } // cutime, cstime

func ticks(pid int, fields ...int) time.Duration {
	all := stat(pid)
	if all == nil {
		return 0
	}
	sum := 0
	for _, field := range fields {
		n, _ := strconv.Atoi(all[field])
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs
}

// resident is the memory of one process, in MiB, shared pages included.
func resident(pid int) float64 { return memory(pid, "status", "VmRSS:") }

// proportional is the memory of processes and their descendants, in MiB, with
// pages that n of them share counted as an nth each.
func proportional(pids ...int) float64 {
	var sum float64
	for _, pid := range family(pids...) {
		sum += memory(pid, "smaps_rollup", "Pss:")
	}
	return sum
}

// memory is one field of a process's memory figures in /proc, in MiB; 0 when the
// process has ended.
func memory(pid int, file, field string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field); ok {
			kb, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			return float64(kb) / 1024
		}
	}
	return 0
}
