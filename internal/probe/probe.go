// Package probe makes lbctl's own health checks of instances, independent of those of
// Consul. It ejects failing instances of an endpoint table, readmits them when they answer
// again, and releases held instances that are gone.
package probe

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"lbctl/internal/endpoints"
)

const (
	// perSecond is the maximum number of probes per second: with more instances, each one
	// is probed less often.
	perSecond = 100
	// With manyTargets a round takes so long that Consul's own checks are what finds
	// failures, and processor time is worth more.
	manyTargets   = 2000
	manyPerSecond = 20
	// atOnce is how many instances may be asked at the same time.
	atOnce = perSecond
	// burst is how much time the bound of perSecond may catch up with.
	burst = 50 * time.Millisecond
)

// Options tunes a Prober. A number or duration that is zero is that of DefaultOptions,
// but the zero value asks held instances only.
type Options struct {
	// InRotation says whether instances in rotation are asked, by their service's
	// Check. Held ones are asked in any case.
	InRotation bool
	// Interval is the time from one question to an instance to the next, Timeout
	// how long an answer may take.
	Interval, Timeout time.Duration
	// Fall is the number of failed probes in a row that ejects or releases an instance;
	// Rise is the number of passed probes in a row that readmits it.
	Fall, Rise int
	// Logger is for answers that have the asking panic; default none.
	Logger *slog.Logger
}

// DefaultOptions are what a balancer uses unless its operator says otherwise.
func DefaultOptions() Options {
	return Options{InRotation: true, Interval: time.Second, Timeout: time.Second, Fall: 2, Rise: 2}
}

// Prober asks the instances of an endpoint table: those in rotation, if
// Options.InRotation says so, and held ones. An instance in rotation that fails
// Options.Fall times in a row is ejected, and readmitted after Options.Rise answers.
// A held one that fails is released. Held instances go first. They are not asked while
// Consul can't be trusted: one that only restarts could not come back.
type Prober struct {
	table *endpoints.Table
	opts  Options
	ask   func(ctx context.Context, q question) error

	// The loop's own.
	probes  map[target]*probe
	current bool // probes are those that the table wants
	groups  map[string]group

	held, checks queue
	nextCheck    time.Time // when the bound allows the next one of checks

	busy    int // questions without an answer yet
	results chan result
	asking  sync.WaitGroup
}

// New makes a Prober of the table's instances. There must be one Prober of a table only.
func New(table *endpoints.Table, opts Options) *Prober {
	defaults := DefaultOptions()
	opts.Interval = cmp.Or(opts.Interval, defaults.Interval)
	opts.Timeout = cmp.Or(opts.Timeout, defaults.Timeout)
	opts.Fall = cmp.Or(opts.Fall, defaults.Fall)
	opts.Rise = cmp.Or(opts.Rise, defaults.Rise)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	return &Prober{table: table, opts: opts, ask: ask, probes: map[target]*probe{}, results: make(chan result, atOnce)}
}

// Run asks until ctx is done and returns its error. It can run once.
func (p *Prober) Run(ctx context.Context) error {
	defer p.asking.Wait()
	for {
		p.follow(time.Now())
		p.askDue(ctx, time.Now())
		var next <-chan time.Time
		if at := p.next(); !at.IsZero() {
			next = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.table.Observed():
			p.current = false
		case r := <-p.results:
			p.handle(ctx, r)
		case <-next:
		}
	}
}

// target is an instance, and what it is asked.
type target struct {
	service, node, id string
	question          question
}

func (t target) isHeld() bool { return t.question.check == checkHeld }

// heldTargets is the held instances that are to be asked.
func (p *Prober) heldTargets() []target {
	var all []target
	for _, h := range p.table.Held() {
		if !h.Until.IsZero() {
			all = append(all, target{h.Service, h.Instance.Node, h.Instance.ID, question{h.Protocol, checkHeld, h.Instance.HostPort()}})
		}
	}
	return all
}

// targetsOf is a service's instances in rotation that are to be asked.
func targetsOf(e endpoints.Entry) []target {
	var all []target
	if e.Protocol == "" || e.Check == endpoints.CheckNone {
		return all
	}
	for _, i := range e.Instances {
		if i.InRotation() {
			all = append(all, target{e.Name, i.Node, i.ID, question{e.Protocol, e.Check, i.HostPort()}})
		}
	}
	return all
}

// group is the targets of a service, and what they were made of: with thousands of
// services most are the same from one change to the next. The held instances of all
// services are a group of their own, without a name.
type group struct {
	revision uint64 // of the entry
	protocol endpoints.Protocol
	check    endpoints.Check
	targets  []target
}

// probe is what is known of a target.
type probe struct {
	target
	due                 time.Time
	index               int // in its queue; -1 while it is being asked
	failures, successes int // in a row
}

// result is what came of a question.
type result struct {
	probe *probe
	asked time.Time
	err   error
}

// follow adapts the probes to what the table has now.
func (p *Prober) follow(now time.Time) {
	if p.current {
		return
	}
	p.current = true
	held := group{targets: p.heldTargets()}
	groups := map[string]group{"": held}
	p.replace(now, p.groups[""].targets, held.targets)
	if p.opts.InRotation {
		for _, e := range p.table.Entries() {
			g, ok := p.groups[e.Name]
			if ok && g.revision == e.Revision && g.protocol == e.Protocol && g.check == e.Check {
				groups[e.Name] = g
				continue
			}
			after := group{e.Revision, e.Protocol, e.Check, targetsOf(e)}
			groups[e.Name] = after
			p.replace(now, g.targets, after.targets)
		}
	}
	for name, old := range p.groups {
		if _, ok := groups[name]; !ok {
			p.replace(now, old.targets, nil)
		}
	}
	p.groups = groups
}

// replace asks other targets than before.
func (p *Prober) replace(now time.Time, before, after []target) {
	wanted := make(map[target]bool, len(after))
	for _, to := range after {
		wanted[to] = true
		if p.probes[to] != nil {
			continue
		}
		b := &probe{target: to, due: now}
		if !b.isHeld() {
			b.due = now.Add(rand.N(p.opts.Interval)) // not all at once
		}
		p.probes[to] = b
		heap.Push(p.queueOf(b), b)
	}
	for _, to := range before {
		b := p.probes[to]
		if wanted[to] || b == nil {
			continue
		}
		delete(p.probes, to)
		if b.index >= 0 {
			heap.Remove(p.queueOf(b), b.index)
		}
	}
}

func (p *Prober) queueOf(b *probe) *queue {
	if b.isHeld() {
		return &p.held
	}
	return &p.checks
}

// askDue asks the targets that are due.
func (p *Prober) askDue(ctx context.Context, now time.Time) {
	for p.busy < atOnce {
		var b *probe
		switch {
		case p.held.due(now):
			b = heap.Pop(&p.held).(*probe)
		case p.checks.due(now) && !p.nextCheck.After(now):
			b = heap.Pop(&p.checks).(*probe)
			if earliest := now.Add(-burst); p.nextCheck.Before(earliest) {
				p.nextCheck = earliest
			}
			p.nextCheck = p.nextCheck.Add(p.pause())
		default:
			return
		}
		p.busy++
		p.asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
			defer cancel()
			p.results <- result{b, now, p.askRecovering(ctx, b.question)}
		})
	}
}

// askRecovering makes an answer that has the asking panic a failure of its instance.
func (p *Prober) askRecovering(ctx context.Context, q question) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			p.opts.Logger.Error("an instance's answer could not be handled, this is a bug in lbctl",
				"address", q.address, "panic", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("its answer could not be handled: %v", fault)
		}
	}()
	return p.ask(ctx, q)
}

// pause is how far apart checks are at least.
func (p *Prober) pause() time.Duration {
	if len(p.probes) >= manyTargets {
		return time.Second / manyPerSecond
	}
	return time.Second / perSecond
}

// next is when a target is due; zero when nothing can be asked before a result or a
// change arrives.
func (p *Prober) next() time.Time {
	var at time.Time
	if p.busy == atOnce {
		return at
	}
	if len(p.held) > 0 {
		at = p.held[0].due
	}
	if len(p.checks) > 0 {
		due := p.checks[0].due
		if due.Before(p.nextCheck) {
			due = p.nextCheck
		}
		if at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}

// handle draws the conclusions from a result, and makes the target due again.
func (p *Prober) handle(ctx context.Context, r result) {
	p.busy--
	b := r.probe
	if p.probes[b.target] != b || ctx.Err() != nil {
		return // the target is gone; or the question failed because we stop
	}
	needed := failuresNeeded(r.err, p.opts.Fall)
	switch {
	case r.err == nil:
		b.failures = 0
		if b.successes++; b.successes == p.opts.Rise && !b.isHeld() {
			p.table.Readmit(b.service, b.node, b.id, endpoints.ByProbe)
		}
	case needed > 0:
		b.successes = 0
		if b.failures++; b.failures < needed {
			break
		}
		if b.isHeld() {
			p.table.Release(b.service, b.node, b.id)
			delete(p.probes, b.target)
			return
		}
		p.table.Eject(b.service, b.question.address, endpoints.Ejection{
			Node: b.node, ID: b.id, By: endpoints.ByProbe, Reason: reason(r.err), Since: r.asked,
		})
	}
	b.due = r.asked.Add(p.opts.Interval)
	if !b.isHeld() {
		b.due = b.due.Add(rand.N(p.opts.Interval/5) - p.opts.Interval/10)
	}
	heap.Push(p.queueOf(b), b)
}
