package nginx

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lbctl/internal/disk"
)

// A Process is one of nginx's.
type Process struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Retired is when an old worker was first seen to be one: when nginx moved
	// to the next generation, or, for one that was old before, when this
	// Instance was made. It is zero for all others.
	Retired time.Time `json:"retired,omitzero"`
	// Memory is what of an old worker's memory is its own, in bytes: what would
	// be free without it. It is 0 for all others, and where /proc does not tell.
	Memory int64 `json:"memory,omitempty"`
}

// Processes are those of the running nginx, the oldest first.
type Processes struct {
	Master  Process   `json:"master"`
	Workers []Process `json:"workers"`
	// OldWorkers belong to earlier generations. They accept nothing new and stay
	// until their last connection is closed, for long streams for hours.
	OldWorkers []Process `json:"old_workers"`
}

// Processes looks up nginx's processes in /proc. The error is ErrNotRunning when
// there is no master.
func (i *Instance) Processes() (Processes, error) {
	processes, err := i.processes()
	if err != nil {
		return Processes{}, err
	}
	for n := range processes.OldWorkers {
		processes.OldWorkers[n].Memory = privateMemory(processes.OldWorkers[n].PID)
	}
	i.retired.date(processes.OldWorkers, time.Now())
	return processes, nil
}

// processes is Processes without what is worth knowing of old workers only when
// somebody looks: the kernel walks all their pages for it.
func (i *Instance) processes() (Processes, error) {
	master := i.master()
	if master == 0 {
		return Processes{}, fmt.Errorf("%w: %s names no running nginx", ErrNotRunning, i.pidPath())
	}
	boot, err := bootTime()
	if err != nil {
		return Processes{}, err
	}
	_, started, err := stat(master, boot)
	if err != nil {
		return Processes{}, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	processes := Processes{Master: Process{PID: master, Started: started}}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Processes{}, fmt.Errorf("look up nginx's workers: %w", err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		parent, started, err := stat(pid, boot)
		if err != nil || parent != master {
			continue
		}
		switch title := commandLine(pid); {
		case accepts(title):
			processes.Workers = append(processes.Workers, Process{PID: pid, Started: started})
		case strings.HasPrefix(title, workerTitle):
			processes.OldWorkers = append(processes.OldWorkers, Process{PID: pid, Started: started})
		}
	}
	for _, workers := range [][]Process{processes.Workers, processes.OldWorkers} {
		slices.SortFunc(workers, func(a, b Process) int { return a.Started.Compare(b.Started) })
	}
	return processes, nil
}

// retirements is since when workers are old, by process id. /proc tells only
// when they began.
type retirements struct {
	mu    sync.Mutex
	since map[int]time.Time
}

// note says that workers have become old ones.
func (r *retirements) note(pids []int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == nil {
		r.since = map[int]time.Time{}
	}
	for _, pid := range pids {
		r.since[pid] = now
	}
}

// date fills in since when these, which are all old workers there are, are old,
// and forgets the others.
func (r *retirements) date(old []Process, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := make(map[int]time.Time, len(old))
	for n := range old {
		p := &old[n]
		p.Retired = now
		if known, ok := r.since[p.PID]; ok && !known.Before(p.Started.Add(-time.Second)) { // else the id is another's by now; btime has whole seconds
			p.Retired = known
		}
		since[p.PID] = p.Retired
	}
	r.since = since
}

// privateMemory is how much memory only this process has, in bytes; 0 when it
// can't be found out.
func privateMemory(pid int) int64 {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if text, err := os.ReadFile(filepath.Join(dir, "smaps_rollup")); err == nil {
		if bytes, ok := rollup(string(text)); ok {
			return bytes
		}
	}
	// A process of another user shows only this, unless one may trace it. Shared
	// memory and files are not counted, what is shared with the master since the
	// fork is.
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

// rollup adds up the private pages in /proc/PID/smaps_rollup.
func rollup(text string) (bytes int64, ok bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" || fields[0] != "Private_Clean:" && fields[0] != "Private_Dirty:" {
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

// workerTitle is how a worker is called in the list of processes; one that takes
// no more connections has "is shutting down" behind it.
const workerTitle = "nginx: worker process"

// accepts reports whether a process with this title takes new connections.
func accepts(title string) bool {
	return strings.HasPrefix(title, workerTitle) && !strings.HasSuffix(title, "shutting down")
}

const maxPid = 64 // bytes of a pid file

// master is the process id of the running master, 0 when there is none. The pid
// file alone proves nothing: a killed master leaves it behind, and nginx -t
// makes an empty one.
func (i *Instance) master() int {
	text, err := disk.ReadFile(i.pidPath(), maxPid)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 1 {
		return 0
	}
	title := commandLine(pid)
	name, _, _ := strings.Cut(title, " ")
	if strings.HasPrefix(title, "nginx: master process") || filepath.Base(name) == filepath.Base(i.opts.Binary) {
		return pid // the latter for the moment before nginx sets its title
	}
	return 0
}

// commandLine is the title of a process, with spaces between its words. A
// process that is gone, or dead and not yet waited for, has none.
func commandLine(pid int) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
}

// ticksPerSecond is USER_HZ, in which /proc counts; it is 100 on every
// architecture Go supports on Linux.
const ticksPerSecond = 100

// stat reads parent and start time from /proc/PID/stat; see proc(5).
func stat(pid int, boot time.Time) (parent int, started time.Time, err error) {
	path := filepath.Join("/proc", strconv.Itoa(pid), "stat")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, time.Time{}, err
	}
	// The second field is the name, in parentheses, and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return 0, time.Time{}, fmt.Errorf("%s: got %d fields after the name, want 20", path, len(fields))
	}
	parent, err1 := strconv.Atoi(fields[1])
	ticks, err2 := strconv.ParseInt(fields[19], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, time.Time{}, fmt.Errorf("%s: %w", path, err)
	}
	return parent, boot.Add(time.Duration(ticks) * time.Second / ticksPerSecond), nil
}

func bootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(text)) {
		if seconds, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat: no line with btime")
}
