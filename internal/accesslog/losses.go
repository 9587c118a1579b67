package accesslog

import (
	"context"
	"math"
	"time"
)

// Requests is what nginx says of its requests.
type Requests struct {
	// Run identifies nginx's run, from the start of the master process to its end, and Started is
	// when it began.
	Run     string
	Started time.Time
	// Ended is how many requests have ended in this run, with the one that asked: for each of them
	// nginx has written a line, or will do so in a moment.
	Ended int64
}

const (
	// sampleInterval is how often nginx is asked for its requests while it has some: what ends after the
	// last question is not known if nginx is killed. make bench-observability has what this costs.
	sampleInterval = 100 * time.Millisecond
	// idleInterval is how often it is asked while it has none.
	idleInterval = time.Second
	// settleTime is how long after the end of a request its line may come. nginx's workers keep lines
	// for 200 ms; one that is very busy may be late.
	settleTime = 5 * time.Second
	// learning is how long the losses of a run begin anew of which the beginning is not known.
	learning = 30 * time.Second
	// clockSlack is how much nginx's clock may be behind, which it reads once for many events.
	clockSlack = 20 * time.Millisecond
	// lineSteps and lineStep are the length and the resolution of the memory of numbers of lines.
	lineSteps = 2000
	lineStep  = 10 // milliseconds
	// clockStep is a difference between two clocks that somebody must have set.
	clockStep = 50 * time.Millisecond
	// unknown is the base of a run without a sample so far.
	unknown = math.MinInt64
)

// losses finds out how many requests have no line, because nginx had no room for it or was killed.
// nginx counts its requests, so those that have ended and have no line some seconds later are lost.
type losses struct {
	lost    int64 // never goes down
	run     run
	former  run // the one before
	pending []sample
	asked   time.Time // when the last sample was taken
	busy    bool      // there are requests other than the questions

	interval, idle, settle time.Duration // the constants of these names; others in tests

	// ended are the numbers of lines by the time when their requests ended, in steps; a ring.
	ended [lineSteps]struct{ step, lines int64 }
	any   bool      // there was a line
	since time.Time // when this lbctl began: it reads all lines of requests that end later
	// saved is when the former lbctl last wrote its snapshot: this one reads all lines of requests
	// that ended later. Zero: there was none that asked nginx.
	saved time.Time
}

// run is a run of nginx.
type run struct {
	id      string
	started int64 // unix time in milliseconds
	lines   int64 // of requests that ended after started
	// base is how many requests ended without a line before lbctl could know.
	base int64
	// learns is until when base is raised, in unix time in milliseconds; 0: base is exact, because
	// lbctl has seen all lines of the run.
	learns int64
	found  int64 // how many of the run's lines are known to be lost
	last   int64 // how many were missing in the last sample; it counts if the one before says so too
}

// sample is an answer of nginx, until all lines of the requests that had ended have been read.
type sample struct {
	Requests
	at    time.Time
	wall  int64 // at, in unix milliseconds: somebody can set that clock
	slack int64 // how many requests may have ended between the answer and at
	lines int64 // of requests of this run that ended before at
}

// lossSnapshot is what the next lbctl must know.
type lossSnapshot struct {
	Lost    int64  `json:"lost"`
	Run     string `json:"run,omitempty"`
	Started int64  `json:"started,omitempty"`
	Lines   int64  `json:"lines,omitempty"`
	Base    int64  `json:"base,omitempty"`
	Learns  int64  `json:"learns,omitempty"`
	Found   int64  `json:"found,omitempty"`
	Last    int64  `json:"last,omitempty"`
}

func (l *losses) snapshot() *lossSnapshot {
	r := &l.run
	return &lossSnapshot{l.lost, r.id, r.started, r.lines, r.base, r.learns, r.found, r.last}
}

func (l *losses) restore(s *lossSnapshot, saved time.Time) {
	if s == nil {
		return
	}
	l.lost = s.Lost
	l.run = run{s.Run, s.Started, s.Lines, s.Base, s.Learns, s.Found, s.Last}
	if s.Run != "" {
		l.saved = saved
	}
}

// take notes the line of a request that ended at a time, in unix milliseconds.
func (l *losses) take(ended int64) {
	l.any = true
	step := ended / lineStep
	slot := &l.ended[uint64(step)%lineSteps]
	if slot.step < step {
		slot.step, slot.lines = step, 0
	}
	if slot.step == step {
		slot.lines++
	}
	if ended >= l.run.started {
		l.run.lines++
	}
	for n := len(l.pending) - 1; n >= 0 && ended <= l.pending[n].wall; n-- { // most lines are younger than all but the last
		if p := &l.pending[n]; ended >= p.Started.UnixMilli() {
			p.lines++
		}
	}
}

// ask takes a sample if it is time.
func (r *Reader) ask(ctx context.Context) {
	if r.opts.Requests == nil || time.Since(r.losses.asked) < r.losses.pause() {
		return
	}
	begin := time.Now()
	r.losses.asked = begin
	answer, err := r.opts.Requests(ctx)
	if err != nil {
		return // nginx does not run, or serves a generation of an lbctl that did not ask
	}
	now := time.Now()
	r.losses.add(answer, now, now.UnixMilli(), now.Sub(begin))
}

// pause is the time between two samples.
func (l *losses) pause() time.Duration {
	if l.busy {
		return l.interval
	}
	return l.idle
}

// add adds a sample that was taken at a time, by a question that took so long.
func (l *losses) add(answer Requests, at time.Time, wall int64, took time.Duration) {
	const question = 1 // has ended since the last sample
	n := len(l.pending)
	l.busy = n > 0 && answer.Ended-l.pending[n-1].Ended > question
	if answer.Run != l.run.id {
		l.begin(answer, wall)
	} else if n > 0 && l.pending[n-1].clockSet(at, wall) {
		// The times of lines don't tell any more whether they belong to a sample.
		l.pending = nil
		l.run.started = answer.Started.UnixMilli()
		l.run.learn(wall)
	}
	l.pending = append(l.pending, sample{answer, at, wall, l.rate(wall, took+clockSlack), l.run.lines})
}

// begin begins another run.
func (l *losses) begin(answer Requests, wall int64) {
	l.lost += l.run.find(l.run.last) // no further sample will say so too
	next := run{id: answer.Run, started: answer.Started.UnixMilli()}
	seen := answer.Started.After(l.since) || !l.saved.IsZero() && answer.Started.After(l.saved)
	remembered := !l.any || wall-next.started < (lineSteps-1)*lineStep
	if seen && remembered {
		for _, slot := range l.ended {
			if slot.step >= next.started/lineStep {
				next.lines += slot.lines
			}
		}
	} else {
		next.learn(wall)
	}
	l.former, l.run = l.run, next
}

// rate returns how many requests may end in a time, by the lines of the last seconds.
func (l *losses) rate(wall int64, d time.Duration) int64 {
	const seconds = 5
	most, step := int64(0), wall/lineStep
	for n := range int64(seconds * 1000 / lineStep) {
		if slot := l.ended[uint64(step-n)%lineSteps]; slot.step == step-n {
			most = max(most, slot.lines)
		}
	}
	return most * (d.Milliseconds() + lineStep - 1) / lineStep
}

// judge looks at the samples whose lines have all been read, by a reading that began at a time.
func (l *losses) judge(read time.Time, wall int64) {
	for len(l.pending) > 0 && read.Sub(l.pending[0].at) >= l.settle {
		p := l.pending[0]
		l.pending = l.pending[1:]
		if p.clockSet(read, wall) {
			continue
		}
		switch p.Run {
		case l.run.id:
			l.lost += l.run.judge(p)
		case l.former.id:
			if p.wall > l.former.learns && l.former.base != unknown {
				l.lost += l.former.find(p.Ended - p.lines - l.former.base)
			}
		}
	}
}

// clockSet reports whether somebody has set the clock since the sample.
func (s *sample) clockSet(at time.Time, wall int64) bool {
	set := time.Duration(wall-s.wall)*time.Millisecond - at.Sub(s.at)
	return set > clockStep || set < -clockStep
}

// learn makes the run's base unknown, and takes what is missing now as not lost.
func (r *run) learn(wall int64) {
	r.base, r.learns, r.found, r.last = unknown, wall+learning.Milliseconds(), 0, 0
}

// judge looks at a sample of the run, and returns how many more lines are lost.
func (r *run) judge(p sample) int64 {
	missing := p.Ended - p.lines
	if p.wall <= r.learns || r.base == unknown {
		r.base = max(r.base, missing+p.slack)
		return 0
	}
	missing -= r.base
	// A sample can be one too high: a request is nowhere while its state changes.
	certain := min(missing, r.last)
	r.last = missing
	return r.find(certain)
}

// find notes how many lines of the run are lost, and returns how many of them were not known.
func (r *run) find(missing int64) (more int64) {
	more = max(0, missing-r.found)
	r.found += more
	return more
}
