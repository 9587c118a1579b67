package endpoints

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// probesPerSecond bounds what probes cost: with more instances than that
	// each is asked less often.
	probesPerSecond = 100
	// With manyProbed of them a round takes so long that Consul's own checks have
	// to find out, and processor time is worth more.
	manyProbed          = 2000
	manyProbesPerSecond = 20
	// probesAtOnce are a second's worth, should all of them wait for a second.
	probesAtOnce = probesPerSecond
	// probeBurst is how far the bound may be caught up with.
	probeBurst = 50 * time.Millisecond
	// networkFall is how many times as many failures it takes where the network
	// is the reason.
	networkFall = 3
)

// Probe asks instances themselves, over another path than Consul: those in
// rotation, if Options.Probe says so, by their service's Check, and held ones in
// their own protocol. What fails ProbeFall times in a row is ejected, and back
// after ProbeRise answers; what is held is released. Held instances go first,
// and they alone are not asked while Consul can't be trusted: one that only
// restarts could not come back.
//
// Probe runs until ctx is done and returns its error; nothing is asked where
// there is nobody to ask.
func (t *Table) Probe(ctx context.Context) error {
	p := &prober{table: t, watches: map[probed]*watch{}, answers: make(chan outcome, probesAtOnce)}
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
		case <-t.wake:
			p.current = false
		case a := <-p.answers:
			p.judge(ctx, a)
		case <-next:
		}
	}
}

// probed is an instance as it is asked.
type probed struct {
	service  string
	id       id
	question question
}

func (w probed) held() bool { return w.question.check == checkProtocol }

// heldToProbe is the held instances that are to be asked.
func (t *Table) heldToProbe() []probed {
	var all []probed
	for _, h := range t.Held() {
		if !h.Until.IsZero() {
			all = append(all, probed{h.Service, h.Instance.key(), question{h.Protocol, checkProtocol, h.Instance.HostPort()}})
		}
	}
	return all
}

// toProbe is a service's instances that are to be asked.
func (e Entry) toProbe() []probed {
	var all []probed
	if e.Protocol == "" || e.Check == CheckNone {
		return all
	}
	for _, i := range e.Instances {
		if i.InRotation() {
			all = append(all, probed{e.Name, i.key(), question{e.Protocol, e.Check, i.HostPort()}})
		}
	}
	return all
}

// prober is the state of Probe. Its loop alone touches it.
type prober struct {
	table   *Table
	watches map[probed]*watch
	current bool // watches are those that the table wants
	groups  map[string]group

	looks, checks queue     // of held instances and of the others
	paced         time.Time // when the next check may start

	busy    int // questions without an answer
	answers chan outcome
	asking  sync.WaitGroup
}

// group is the watches of a service, and what they were made of: with thousands
// of services most are the same from one change to the next. The held instances
// of all services are a group of their own, without a name.
type group struct {
	instances []Instance
	protocol  Protocol
	check     Check
	probed    []probed
}

// watch is what is known of an instance that is asked.
type watch struct {
	probed
	due          time.Time
	place        int // in its queue; -1: it is being asked
	falls, rises int // in a row
}

// outcome is an answer, or none.
type outcome struct {
	watch *watch
	asked time.Time
	err   error
}

// follow adapts the watches to what the table wants.
func (p *prober) follow(now time.Time) {
	if p.current {
		return
	}
	p.current = true
	groups := map[string]group{"": {probed: p.table.heldToProbe()}}
	if p.table.opts.Probe {
		for _, e := range p.table.Entries() {
			g, ok := p.groups[e.Name]
			if !ok || !same(g.instances, e.Instances) || g.protocol != e.Protocol || g.check != e.Check {
				g = group{e.Instances, e.Protocol, e.Check, e.toProbe()}
			}
			groups[e.Name] = g
		}
	}
	before := p.groups
	p.groups = groups
	for name, g := range groups {
		if old, ok := before[name]; !ok || !same(old.probed, g.probed) {
			p.replace(now, old.probed, g.probed)
		}
	}
	for name, old := range before {
		if _, ok := groups[name]; !ok {
			p.replace(now, old.probed, nil)
		}
	}
}

// replace watches other instances than before.
func (p *prober) replace(now time.Time, before, after []probed) {
	wanted := make(map[probed]bool, len(after))
	for _, to := range after {
		wanted[to] = true
		if p.watches[to] != nil {
			continue
		}
		w := &watch{probed: to, due: now}
		if !w.held() {
			w.due = now.Add(rand.N(p.table.opts.ProbeInterval)) // not all at once
		}
		p.watches[to] = w
		heap.Push(p.queue(w), w)
	}
	for _, to := range before {
		w := p.watches[to]
		if wanted[to] || w == nil {
			continue
		}
		delete(p.watches, to)
		if w.place >= 0 {
			heap.Remove(p.queue(w), w.place)
		}
	}
}

func (p *prober) queue(w *watch) *queue {
	if w.held() {
		return &p.looks
	}
	return &p.checks
}

// askDue asks whom it is time to ask.
func (p *prober) askDue(ctx context.Context, now time.Time) {
	for p.busy < probesAtOnce {
		var w *watch
		switch {
		case p.looks.due(now):
			w = heap.Pop(&p.looks).(*watch)
		case p.checks.due(now) && !p.paced.After(now):
			w = heap.Pop(&p.checks).(*watch)
			if earliest := now.Add(-probeBurst); p.paced.Before(earliest) {
				p.paced = earliest
			}
			p.paced = p.paced.Add(p.pause())
		default:
			return
		}
		p.busy++
		p.asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, p.table.opts.ProbeTimeout)
			defer cancel()
			p.answers <- outcome{w, now, p.table.ask(ctx, w.question)}
		})
	}
}

// pause is how far apart checks are.
func (p *prober) pause() time.Duration {
	if len(p.watches) >= manyProbed {
		return time.Second / manyProbesPerSecond
	}
	return time.Second / probesPerSecond
}

// next is when there is somebody to ask again; zero when only an answer or a
// change can tell.
func (p *prober) next() time.Time {
	var at time.Time
	if p.busy == probesAtOnce {
		return at
	}
	if len(p.looks) > 0 {
		at = p.looks[0].due
	}
	if len(p.checks) > 0 {
		due := p.checks[0].due
		if due.Before(p.paced) {
			due = p.paced
		}
		if at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}

// judge takes in an answer.
func (p *prober) judge(ctx context.Context, a outcome) {
	p.busy--
	w := a.watch
	if p.watches[w.probed] != w || ctx.Err() != nil {
		return // it is gone; or it failed because we stop
	}
	opts := p.table.opts
	needed := enough(a.err, opts.ProbeFall)
	switch {
	case a.err == nil:
		w.falls = 0
		if w.rises++; w.rises == opts.ProbeRise && !w.held() {
			p.table.readmit(w.service, w.id, ByProbe)
		}
	case needed > 0:
		w.rises = 0
		if w.falls++; w.falls < needed {
			break
		}
		if w.held() {
			p.table.Release(w.service, w.id.node, w.id.id)
			delete(p.watches, w.probed)
			return
		}
		p.table.eject(w.service, w.id, failing{address: w.question.address, source: ByProbe, reason: why(a.err), since: a.asked})
	}
	w.due = a.asked.Add(opts.ProbeInterval)
	if !w.held() {
		w.due = w.due.Add(rand.N(opts.ProbeInterval/5) - opts.ProbeInterval/10)
	}
	heap.Push(p.queue(w), w)
}

// enough is how many failures in a row like err say that an instance is gone, if
// it is fall of most; 0 for an error that is about this machine and not about the
// instance: no free port and no answer from DNS prove nothing. A network that
// can't be reached may be ours or the instance's, so it is given time to come
// back.
func enough(err error, fall int) int {
	if err == nil {
		return 0
	}
	for _, ours := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS} {
		if errors.Is(err, ours) {
			return 0
		}
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && !dns.IsNotFound {
		return 0
	}
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ENETDOWN) {
		return networkFall * fall
	}
	return fall
}

// queue is a heap of watches, the one that is due first at its root.
type queue []*watch

func (q queue) due(now time.Time) bool { return len(q) > 0 && !q[0].due.After(now) }

// The methods of heap.Interface.

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *queue) Push(w any) {
	w.(*watch).place = len(*q)
	*q = append(*q, w.(*watch))
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.place = -1
	return w
}
