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
	"lbctl/internal/policy"
)

const (
	// perSecond is the maximum number of probes per second: with more instances, each one
	// is probed less often.
	perSecond = 100
	// From manyTargets on, a round takes so long that Consul's checks find most failures
	// first. Then less processor time is better than faster probes.
	manyTargets   = 2000
	manyPerSecond = 20
	// atOnce is how many probes may run at the same time.
	atOnce = perSecond
	// burst is the time whose unused probes may be made later.
	burst = 50 * time.Millisecond
)

// Options tunes a Prober. A number or duration of zero means the value in DefaultOptions. The
// zero value of Options probes only held instances.
type Options struct {
	// InRotation says whether instances in rotation are probed, by their service's Check.
	// Held ones are always probed.
	InRotation bool
	// Interval is the time between two probes of an instance; after a timeout the next one
	// follows at once. Timeout is how long an answer may take. A connection must be open
	// within half of it.
	Interval, Timeout time.Duration
	// Fall is the number of failed probes in a row that ejects or releases an instance;
	// Rise is the number of passed probes in a row that readmits it.
	Fall, Rise int
	// Logger gets answers that make a probe panic; default none.
	Logger *slog.Logger
}

// DefaultOptions returns the options of a balancer whose operator sets none.
func DefaultOptions() Options {
	return Options{InRotation: true, Interval: time.Second, Timeout: time.Second, Fall: 2, Rise: 2}
}

// Prober probes the instances of an endpoint table: held ones, and with Options.InRotation
// those in rotation. It ejects an instance in rotation that fails Options.Fall times in a row,
// and readmits it after Options.Rise answers. It releases a held instance that fails. Held
// instances come first. They are not probed while Consul can't be trusted, because a released
// one that has only restarted could not return.
type Prober struct {
	table *endpoints.Table
	opts  Options
	ask   func(ctx context.Context, q question) error

	// Only the loop uses these.
	probes  map[target]*probe
	current bool // probes match the table
	groups  map[string]group

	held, checks queue
	nextCheck    time.Time // when perSecond allows the next check

	busy    int // running probes
	results chan result
	asking  sync.WaitGroup

	outcomes outcomes
}

// New makes a Prober of the table's instances. A table must have only one Prober.
func New(table *endpoints.Table, opts Options) *Prober {
	defaults := DefaultOptions()
	opts.Interval = cmp.Or(opts.Interval, defaults.Interval)
	opts.Timeout = cmp.Or(opts.Timeout, defaults.Timeout)
	opts.Fall = cmp.Or(opts.Fall, defaults.Fall)
	opts.Rise = cmp.Or(opts.Rise, defaults.Rise)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	return &Prober{table: table, opts: opts, ask: ask, probes: map[target]*probe{}, results: make(chan result, atOnce)}
}

// Run probes until ctx is done, and returns ctx's error. Call it once.
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

// target is an instance with its check.
type target struct {
	service, node, id string
	question          question
}

func (t target) isHeld() bool { return t.question.check == checkHeld }

// heldTargets returns the held instances to probe.
func (p *Prober) heldTargets() []target {
	var all []target
	for _, h := range p.table.Held() {
		if !h.Until.IsZero() {
			all = append(all, target{h.Service, h.Instance.Node, h.Instance.ID, question{h.Protocol, checkHeld, h.Instance.HostPort()}})
		}
	}
	return all
}

// targetsOf returns a service's instances in rotation to probe.
func targetsOf(e endpoints.Entry) []target {
	var all []target
	if e.Protocol == "" || e.Policy.General().Check == policy.CheckNone {
		return all
	}
	for _, i := range e.Instances {
		if i.InRotation() {
			all = append(all, target{e.Name, i.Node, i.ID, question{e.Protocol, e.Policy.General().Check, i.HostPort()}})
		}
	}
	return all
}

// group has the targets of a service, and the revision that they were made from: with thousands
// of services most targets are the same from one change to the next. The held instances of all
// services are a separate group without a name.
type group struct {
	revision uint64 // of the entry
	protocol endpoints.Protocol
	check    policy.Check
	targets  []target
}

// probe is the state of a target.
type probe struct {
	target
	due                 time.Time
	index               int // in its queue; -1 while its probe runs
	failures, successes int // in a row
}

// result is the result of a probe.
type result struct {
	probe *probe
	asked time.Time
	took  time.Duration
	err   error
}

// follow adapts the probes to the table.
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
			if ok && g.revision == e.Revision && g.protocol == e.Protocol && g.check == e.Policy.General().Check {
				groups[e.Name] = g
				continue
			}
			after := group{e.Revision, e.Protocol, e.Policy.General().Check, targetsOf(e)}
			groups[e.Name] = after
			p.replace(now, g.targets, after.targets)
		}
	}
	for name, old := range p.groups {
		if _, ok := groups[name]; !ok {
			p.replace(now, old.targets, nil)
			p.outcomes.forget(name)
		}
	}
	p.groups = groups
}

// replace replaces the targets of a group.
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

// askDue starts the probes that are due.
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
			began := time.Now()
			deadline := began.Add(p.opts.Timeout)
			ctx, cancel := context.WithDeadline(ctx, deadline)
			defer cancel()
			err := unlessLate(p.askRecovering(ctx, b.question), deadline)
			p.results <- result{b, now, time.Since(began), err}
		})
	}
}

// askRecovering is ask, but counts an answer that makes it panic as a failure.
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

// pause returns the minimum time between two checks.
func (p *Prober) pause() time.Duration {
	if len(p.probes) >= manyTargets {
		return time.Second / manyPerSecond
	}
	return time.Second / perSecond
}

// next returns when the next target is due; zero if no probe can start before a result or a
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

// handle ejects, readmits or releases an instance after a result, and schedules its next probe.
func (p *Prober) handle(ctx context.Context, r result) {
	p.busy--
	b := r.probe
	if p.probes[b.target] != b || ctx.Err() != nil {
		return // the target is gone, or the probe failed because Run is ending
	}
	needed := failuresNeeded(r.err, p.opts.Fall)
	if !b.isHeld() && (r.err == nil || needed > 0) {
		p.table.NoteProbe(b.service, b.node, b.id, r.err == nil)
		p.outcomes.add(b.service, Outcome{r.asked, r.took, r.err})
	}
	pause := p.opts.Interval
	switch {
	case r.err == nil:
		b.failures = 0
		if b.successes++; b.successes == p.opts.Rise && !b.isHeld() {
			p.table.Readmit(b.service, b.node, b.id, endpoints.ByProbe)
		}
	case needed > 0:
		b.successes = 0
		if b.failures++; b.failures < needed {
			if isTimeout(r.err) && needed == p.opts.Fall {
				pause = 0 // requests wait for it meanwhile, so it is asked again at once
			}
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
	b.due = r.asked.Add(pause)
	if pause > 0 && !b.isHeld() {
		b.due = b.due.Add(rand.N(p.opts.Interval/5) - p.opts.Interval/10)
	}
	heap.Push(p.queueOf(b), b)
}
