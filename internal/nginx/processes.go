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

// A Process is one process of nginx.
type Process struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Retired is when lbctl first saw that the worker is old: when nginx moved to the
	// next generation, or, if the worker was old already, at the first call of
	// Processes. It is zero for all other processes.
	Retired time.Time `json:"retired,omitzero"`
	// Memory is the private memory of an old worker, in bytes, which becomes free when
	// it ends. It is 0 for all other processes, and if /proc does not tell it.
	Memory int64 `json:"memory,omitempty"`
}

// Processes are the processes of the running nginx, the oldest first.
type Processes struct {
	Master  Process   `json:"master"`
	Workers []Process `json:"workers"`
	// OldWorkers belong to earlier generations. They accept no connections, and run
	// until their last connection is closed: with long streams for hours.
	OldWorkers []Process `json:"old_workers"`
}

// Processes looks up nginx's processes in /proc. The error is ErrNotRunning if
// there is no master process.
func (i *Instance) Processes() (Processes, error) {
	processes, err := i.processes()
	if err != nil {
		return Processes{}, err
	}
	for n := range processes.OldWorkers {
		processes.OldWorkers[n].Memory = privateMemory(processes.OldWorkers[n].PID)
	}
	i.retired.fill(processes.OldWorkers, time.Now())
	return processes, nil
}

// processes is Processes without Memory and Retired. Reading Memory is expensive: the
// kernel walks all pages of a process for it.
func (i *Instance) processes() (Processes, error) {
	master := i.master()
	if master == 0 {
		return Processes{}, fmt.Errorf("%w: %s does not name a running nginx", ErrNotRunning, i.pidPath())
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
	pids, err := processIDs()
	if err != nil {
		return Processes{}, fmt.Errorf("look up nginx's workers: %w", err)
	}
	for _, pid := range pids {
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

// retirements records since when workers are old, by process id. /proc tells only when
// they started.
type retirements struct {
	mu    sync.Mutex
	since map[int]time.Time
}

// add records that workers are old since now.
func (r *retirements) add(pids []int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == nil {
		r.since = map[int]time.Time{}
	}
	for _, pid := range pids {
		r.since[pid] = now
	}
}

// fill sets Retired of the old workers. old must be all of them: fill drops the records
// of other processes.
func (r *retirements) fill(old []Process, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := make(map[int]time.Time, len(old))
	for n := range old {
		p := &old[n]
		p.Retired = now
		if known, ok := r.since[p.PID]; ok && !known.Before(p.Started.Add(-time.Second)) { // else another process has the id now; btime has whole seconds
			p.Retired = known
		}
		since[p.PID] = p.Retired
	}
	r.since = since
}

// workerTitle is the start of a worker's process title. The title of an old worker ends
// with "is shutting down".
const workerTitle = "nginx: worker process"

// masterTitle is the start of a master's process title, once it runs.
const masterTitle = "nginx: master process"

// accepts reports whether a process with this title is a worker that accepts new
// connections.
func accepts(title string) bool {
	return strings.HasPrefix(title, workerTitle) && !strings.HasSuffix(title, "shutting down")
}

// Leaving reports whether a process is a worker of nginx from before a reload: it accepts no new
// connections, and ends with its last one.
func Leaving(pid int) bool {
	title := commandLine(pid)
	return strings.HasPrefix(title, workerTitle) && !accepts(title)
}

const maxPid = 64 // bytes of a pid file

// master is the process id of the running master, 0 if there is none. The pid file
// alone proves nothing: a killed master leaves it behind, and nginx -t makes an empty
// one.
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
	if strings.HasPrefix(title, masterTitle) || filepath.Base(name) == filepath.Base(i.opts.Binary) {
		return pid // the title is the command line until nginx sets it
	}
	return 0
}

// processIDs returns the ids of all processes.
func processIDs() (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// commandLine is the title of a process, with spaces between its words. It is "" for a
// process that has ended.
func commandLine(pid int) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
}

// ticksPerSecond is USER_HZ, the unit of times in /proc. It is 100 on every
// architecture that Go supports on Linux.
const ticksPerSecond = 100

// ProcessStarted returns when a process started, to the second. The error is fs.ErrNotExist if there
// is none.
func ProcessStarted(pid int) (time.Time, error) {
	boot, err := bootTime()
	if err != nil {
		return time.Time{}, err
	}
	_, started, err := stat(pid, boot)
	return started, err
}

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
