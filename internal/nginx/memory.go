package nginx

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Memory returns how much memory nginx's processes need together, in bytes: what they share
// counts once, if the kernel tells lbctl about processes of the workers' user. Otherwise pages
// that a worker has had in common with the master since it was started count for both. The error
// is ErrNotRunning if there is no master process.
func (i *Instance) Memory() (bytes int64, err error) {
	processes, err := i.processes()
	if err != nil {
		return 0, err
	}
	all := slices.Concat([]Process{processes.Master}, processes.Workers, processes.OldWorkers)
	for _, p := range all {
		bytes += memory(p.PID, "Pss:")
	}
	return bytes, nil
}

// privateMemory is the memory that a process shares with no other, in bytes; 0 if it
// can't be read.
func privateMemory(pid int) int64 { return memory(pid, "Private_Clean:", "Private_Dirty:") }

// memory adds up fields of /proc/PID/smaps_rollup, in bytes. If it can't be read, the result is
// what statm has instead; 0 if that can't be read either.
func memory(pid int, fields ...string) int64 {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if text, err := os.ReadFile(filepath.Join(dir, "smaps_rollup")); err == nil {
		if bytes, ok := rollup(string(text), fields...); ok {
			return bytes
		}
	}
	// smaps_rollup of another user's process needs the right to trace it; statm does
	// not. resident-shared leaves out shared memory and files, but includes pages that
	// the worker shares with the master since the fork.
	text, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return 0
	}
	var size, resident, shared int64
	if _, err := fmt.Sscan(string(text), &size, &resident, &shared); err != nil {
		return 0
	}
	return max(0, resident-shared) * int64(os.Getpagesize())
}

// rollup adds up fields of /proc/PID/smaps_rollup, such as "Pss:".
func rollup(text string, wanted ...string) (bytes int64, ok bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" || !slices.Contains(wanted, fields[0]) {
			continue
		}
		kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, false
		}
		bytes, ok = bytes+kilobytes<<10, true
	}
	return bytes, ok
}
