package probe

import (
	"context"
	"sync"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// Outcome is how a probe of an instance ended. The zero value stands for no probe.
type Outcome struct {
	At   time.Time     // when it began
	Took time.Duration // how long it took
	Err  error         // nil: the instance passed
}

// Newest has the newest outcomes of the probes of a service's instances in rotation.
type Newest struct {
	Any    Outcome
	Passed Outcome // the newest of those that passed
}

func (n *Newest) add(o Outcome) {
	if o.At.After(n.Any.At) {
		n.Any = o
	}
	if o.Err == nil && o.At.After(n.Passed.At) {
		n.Passed = o
	}
}

// outcomes has the newest outcomes by service.
type outcomes struct {
	mu     sync.Mutex
	newest map[string]*Newest
}

func (o *outcomes) add(service string, one Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.newest == nil {
		o.newest = map[string]*Newest{}
	}
	if o.newest[service] == nil {
		o.newest[service] = &Newest{}
	}
	o.newest[service].add(one)
}

func (o *outcomes) forget(service string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.newest, service)
}

// Newest returns the newest outcomes of a service; zero if none of its instances has been probed.
// It is safe for use by several goroutines, also while Run runs.
func (p *Prober) Newest(service string) Newest {
	p.outcomes.mu.Lock()
	defer p.outcomes.mu.Unlock()
	if n := p.outcomes.newest[service]; n != nil {
		return *n
	}
	return Newest{}
}

// Once probes an instance by the check of its service, apart from Run: it ejects and readmits
// nothing. It returns false if the service wants no probes. ctx bounds how long the answer may
// take. It is safe for use by several goroutines.
func (p *Prober) Once(ctx context.Context, e endpoints.Entry, i endpoints.Instance) (Outcome, bool) {
	check := e.Policy.General().Check
	if e.Protocol == "" || check == policy.CheckNone {
		return Outcome{}, false
	}
	o := Outcome{At: time.Now()}
	o.Err = p.askRecovering(ctx, question{e.Protocol, check, i.HostPort()})
	o.Took = time.Since(o.At)
	return o, true
}
