package accesslog

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"sync"
	"time"
)

// StartFormatName is the name of the format of the lines for requests that begin.
const StartFormatName = "lbctl_start"

// startVersion is the first field of a line for a request that begins.
const startVersion = version + "s"

// startPrefix begins such a line.
const startPrefix = startVersion + "\t"

// StartFormat returns the format of the lines for requests that begin as nginx's directive log_format
// wants it: $lb_started is the same in the line for the request's end.
func StartFormat() string { return `escape=default "` + startVersion + `\t$lb_started\t$lb_service"` }

const (
	// workerInterval is how often the reader looks whether nginx's workers are there.
	workerInterval = time.Second
	// startStep is the resolution of the times when requests began, in milliseconds.
	startStep = 100
	// coarseStep is that of requests that have gone on for longer than coarseAfter, in steps: else
	// many long streams would make the snapshot large.
	coarseStep  = 600
	coarseAfter = 600
	// startSlack is how much earlier than its worker a request may seem to have begun: the kernel
	// tells the time of its own start in seconds.
	startSlack = 2 * time.Second
	// enoughRoom is the free memory of a tmpfs with which nginx loses no line.
	enoughRoom = 1 << 20
)

// inFlight counts the requests that have begun and not ended. A worker writes both lines of a request
// in order, and the reader reads them so. So a count is never wrong by what is not read yet.
type inFlight struct {
	mu sync.Mutex
	// since is a time in steps: only requests that began later count. One that began before may lack
	// one of its lines.
	since   int64
	workers map[int]services // by process id
	looked  time.Time        // when the workers were last looked for
	broken  int64            // how many lines, or files, were known to be broken at since
}

// services are numbers of requests by service and by the step in which they began, without zeros. A
// negative step stands for coarseStep of them.
type services map[string]map[int64]int64

// toCoarse returns the negative step that a step is a part of.
func toCoarse(step int64) int64 { return -(step / coarseStep) }

// firstOf returns the step, or the first one that a negative step stands for.
func firstOf(step int64) int64 {
	if step < 0 {
		return -step * coarseStep
	}
	return step
}

// started is when and where a request began: the value of $lb_started.
type started struct {
	worker int   // process id
	at     int64 // unix time in milliseconds; 0: it is not known
}

// parseStarted parses "PID-SECONDS.MILLISECONDS".
func parseStarted(v []byte) (s started, ok bool) {
	pid, at, ok := bytes.Cut(v, []byte("-"))
	worker, isNumber := number(pid)
	d, isTime := parseSeconds(at)
	return started{int(worker), d.Milliseconds()}, ok && isNumber && isTime
}

// begin counts a request that begins, by its line. It reports whether the line is valid.
func (f *inFlight) begin(line []byte) bool {
	at, service, ok := bytes.Cut(line[len(startPrefix):], []byte("\t"))
	if !ok || bytes.IndexByte(service, '\t') >= 0 {
		return false
	}
	s, ok := parseStarted(at)
	if ok {
		f.add(s, unescape(service), 1)
	}
	return ok
}

// end counts a request that has ended.
func (f *inFlight) end(r *Record) {
	if r.started.at > 0 {
		f.add(r.started, r.Service, -1)
	}
}

func (f *inFlight) add(s started, service []byte, n int64) {
	step := s.at / startStep
	f.mu.Lock()
	defer f.mu.Unlock()
	if step <= f.since {
		return
	}
	steps := f.workers[s.worker][string(service)]
	if _, isFine := steps[step]; n < 0 && !isFine {
		step = toCoarse(step)
	}
	count := steps[step] + n
	switch {
	case count <= 0: // less than 0: the worker is gone, and its requests are forgotten
		delete(steps, step)
	case steps != nil:
		steps[step] = count
	default:
		if f.workers[s.worker] == nil {
			f.workers[s.worker] = services{}
		}
		f.workers[s.worker][string(service)] = map[int64]int64{step: count}
	}
}

// note takes how many lines, or files, are broken: then lines of all requests may be missing.
func (f *inFlight) note(broken int64, now time.Time) {
	switch {
	case now.UnixMilli()/startStep < f.since: // somebody has set the clock
		f.reset(now)
	case broken != f.broken:
		f.forget(now)
	}
	f.broken = broken
}

// forget forgets the requests that have begun so far.
func (f *inFlight) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since = max(f.since, now.UnixMilli()/startStep)
	for _, services := range f.workers {
		services.forget(f.since)
	}
}

// forget forgets the requests that began in a step or before.
func (s services) forget(step int64) {
	for _, steps := range s {
		maps.DeleteFunc(steps, func(begun, _ int64) bool { return firstOf(begun) <= step })
	}
}

// fold makes coarse steps of those before a step.
func (s services) fold(before int64) {
	for _, steps := range s {
		for step, count := range steps {
			if step >= 0 && step < before {
				delete(steps, step)
				steps[toCoarse(step)] += count
			}
		}
	}
}

// reset forgets all requests. Those count that begin in the step of now.
func (f *inFlight) reset(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since, f.workers = now.UnixMilli()/startStep-1, map[int]services{}
}

// look forgets the requests of workers that are gone: they have ended without a line. started says
// when a process started, fs.ErrNotExist if there is none. Call it when all lines have been read.
func (f *inFlight) look(now time.Time, started func(pid int) (time.Time, error)) {
	if now.Sub(f.looked) < workerInterval {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked = now
	for worker, services := range f.workers {
		at, err := started(worker)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			delete(f.workers, worker)
			continue
		case err == nil: // another process can have its id
			services.forget(at.Add(-startSlack).UnixMilli()/startStep - 1)
		}
		services.fold(now.UnixMilli()/startStep - coarseAfter)
		maps.DeleteFunc(services, func(_ string, steps map[int64]int64) bool { return len(steps) == 0 })
		if len(services) == 0 {
			delete(f.workers, worker)
		}
	}
}

// totals returns the numbers of requests by service, without zeros.
func (f *inFlight) totals() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]int64{}
	for _, services := range f.workers {
		for service, steps := range services {
			for _, count := range steps {
				all[service] += count
			}
		}
	}
	return all
}

// inFlightSnapshot is what the next lbctl must know.
type inFlightSnapshot struct {
	Since   int64            `json:"since"`
	Broken  int64            `json:"broken"`
	Workers map[int]services `json:"workers"`
}

// snapshot returns the counts for the next lbctl. Only the reader changes them.
func (f *inFlight) snapshot() *inFlightSnapshot {
	return &inFlightSnapshot{f.since, f.broken, f.workers}
}

// restore takes over the counts of the former lbctl; nil: it had none.
func (f *inFlight) restore(s *inFlightSnapshot, now time.Time) {
	f.reset(now)
	if s == nil {
		return
	}
	f.since, f.broken = s.Since, s.Broken
	for worker, services := range s.Workers {
		if worker > 0 && services != nil {
			f.workers[worker] = services
		}
	}
}
