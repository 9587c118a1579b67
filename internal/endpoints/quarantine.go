package endpoints

import (
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// When a refused service is tried again. Each time that it fails, the pause doubles.
const (
	retrySame    = time.Minute // if it is unchanged: the cause may lie outside lbctl
	retrySameMax = 16 * time.Minute
	// A service that has changed is tried at once the first time, and later after a pause,
	// so that nginx doesn't spend its time on a service that changes all the time.
	retryOther    = time.Second
	retryOtherMax = time.Minute
	// lbctl checks whether a port is free before it tries the service: a failed reload
	// takes seconds, and delays all services.
	retryPort    = 5 * time.Second
	retryPortMax = time.Minute
)

// Refusal is why a service can't be served as its entry says.
type Refusal struct {
	Reason string // the message of nginx or the template
	// Listen is the address that nginx should listen on for the service, if the reason is
	// that another process listens there; else empty.
	Listen string
}

// refusal is a service in quarantine.
type refusal struct {
	Refusal
	service Service // the refused state of the service
	since   time.Time
	times   int // in a row
	// trying: the newest state is being served, to find out whether nginx accepts it.
	trying bool
	other  time.Time // the earliest time for a trial if the service has changed
	same   time.Time // the earliest time if it has not
	next   time.Time // the one of the two that applies
}

// quarantine knows the last state of each service that nginx accepted, and the services
// that were refused. A refused service goes back to its last accepted state.
type quarantine struct {
	free     func(address string) bool // reports whether the address is free to listen on
	accepted map[string]accepted       // by service
	refused  map[string]*refusal       // by service
	// refusedDefault is the refused version of the operator's policy for all services; nil: none.
	refusedDefault *refusedDefault
}

// accepted is the last state of a service that nginx accepted.
type accepted struct {
	service  Service
	revision uint64 // of the entry; 0: not known
}

func newQuarantine() quarantine {
	return quarantine{free: Free, accepted: map[string]accepted{}, refused: map[string]*refusal{}}
}

func (q *quarantine) forget(service string) {
	delete(q.accepted, service)
	delete(q.refused, service)
}

// Refuse quarantines a service, because its entry e, as Observe returned it, can't be
// served. The service goes back to the last state that nginx accepted, or isn't served if
// there is none, until it changes or enough time has passed. That takes effect with the
// next observation; Changed fires for that.
//
// Refuse returns false if the same state was refused before and has only been tried again.
func (t *Table) Refuse(now time.Time, e Entry, why Refusal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[e.Name]
	if r == nil {
		return false
	}
	before := t.quarantine.refused[e.Name]
	if before != nil && !before.trying {
		return false // e is from before the quarantine began
	}
	f := &refusal{Refusal: why, service: r.entry.block(), since: now, other: now, times: 1}
	if before != nil {
		f.since, f.times = before.since, before.times+1
		f.other = now.Add(pause(retryOther, retryOtherMax, f.times-1))
	}
	f.same = now.Add(pause(retrySame, retrySameMax, f.times))
	if why.Listen != "" {
		f.same = now.Add(pause(retryPort, retryPortMax, f.times))
	}
	n := slices.IndexFunc(t.entries, func(x Entry) bool { return x.Name == e.Name })
	if n < 0 || !alike(t.entries[n].block(), e.block()) {
		// The service has changed since. Its newest state waits until the other services
		// have been applied without it, and is tried then.
		f.other, f.same = now.Add(retryOther), now.Add(retryOther)
	}
	f.next = f.same
	t.quarantine.refused[e.Name] = f
	notify(t.changed)
	return before == nil || !alike(before.service, f.service)
}

// pause doubles from least on, for the first, second... time.
func pause(least, most time.Duration, times int) time.Duration {
	return min(least<<min(times-1, 16), most)
}

// RetryRefused makes the next observation try all refused services again, and the next call of
// DefaultPolicy the refused policy. Call it when the templates or nginx have changed.
func (t *Table) RetryRefused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.quarantine.refused {
		f.other, f.same = time.Time{}, time.Time{}
	}
	if r := t.quarantine.refusedDefault; r != nil {
		r.again = time.Time{}
	}
}

// NginxAccepted is called when nginx serves the entries: a service goes back to its entry when a
// later state is refused.
func (t *Table) NginxAccepted(entries []Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := &t.quarantine
	if q.acceptedTrial(entries) {
		notify(t.changed)
		notify(t.unsaved)
	}
	for _, e := range entries {
		if t.records[e.Name] == nil || e.Refused {
			continue
		}
		f, before := q.refused[e.Name], q.accepted[e.Name]
		if f == nil && e.Revision != 0 && e.Revision == before.revision && e.Spec.Equal(before.service.Spec) {
			continue
		}
		if f != nil {
			if f.trying {
				delete(q.refused, e.Name)
			}
			// If it isn't being tried, nginx accepted this state after a later one was
			// refused: the service goes back to this one now.
			notify(t.changed)
		}
		q.accepted[e.Name] = accepted{e.block(), e.Revision}
	}
}

// Suspect is an entry that differs from what nginx accepted.
type Suspect struct {
	Entry
	// Last is the last state of the service that nginx accepted; nil if there is none.
	Last *Service
}

// Suspects returns the entries that can be the cause when nginx refuses a configuration:
// those of services that changed since nginx last accepted them. New services come last.
func (t *Table) Suspects(entries []Entry) []Suspect {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changed, added []Suspect
	for _, e := range entries {
		last, ok := t.quarantine.accepted[e.Name]
		switch {
		case e.Refused:
		case !ok:
			added = append(added, Suspect{Entry: e})
		case !equal(last.service, e.block()):
			changed = append(changed, Suspect{e, &last.service})
		}
	}
	return append(changed, added...)
}

// apply replaces each refused entry by the last state that nginx accepted, unless it is
// time to try the entry again.
func (q *quarantine) apply(now time.Time, entries []Entry, records map[string]*record) {
	if len(q.refused) == 0 {
		return
	}
	for n := range entries {
		e := &entries[n]
		f := q.refused[e.Name]
		if f == nil {
			continue
		}
		if !f.trying {
			f.trying = q.mayTry(now, f, e.block())
		}
		reason := "tried again after it was refused: "
		if !f.trying {
			reason = e.fallBack(q.accepted[e.Name].service)
		}
		if reason += f.Reason; e.Reason != "" {
			reason += "; " + e.Reason
		}
		// The record's state goes on from here once the quarantine is over.
		r := records[e.Name]
		r.state, r.since = Quarantined, f.since
		e.State, e.Reason, e.Since = Quarantined, reason, f.since
	}
}

// mayTry reports whether a refused service is to be tried as it is now. If not, f.next is
// when to ask again.
func (q *quarantine) mayTry(now time.Time, f *refusal, service Service) bool {
	f.next = f.same
	if !alike(f.service, service) {
		f.next = f.other
	}
	if now.Before(f.next) {
		return false
	}
	if f.Listen != "" && f.service.Port == service.Port && !q.free(f.Listen) {
		f.next = now.Add(retryPort)
		return false
	}
	return true
}

// nextTrial returns when the next refused service or policy may be tried; zero for never.
func (q *quarantine) nextTrial() time.Time {
	var next time.Time
	for _, f := range q.refused {
		if !f.trying && (next.IsZero() || f.next.Before(next)) {
			next = f.next
		}
	}
	if q.refusedDefault != nil {
		next = earlier(next, q.refusedDefault.next)
	}
	return next
}

// fallBack sets the entry to the last state that nginx accepted, and sets its State.
func (e *Entry) fallBack(accepted Service) string {
	e.Refused = true
	e.Spec = accepted.Spec
	if accepted.Protocol == "" {
		return "not served, because there is no earlier good state: "
	}
	e.Instances, e.Held = accepted.stillRegistered(e.Instances), accepted.stillRegistered(e.Held)
	return "its last good state is kept: "
}

// stillRegistered returns the instances of the service that are still registered at the
// same address: another service may have the address of an instance that moved. It takes
// over that an instance has left the rotation, or that its weight has become 0, but never
// the opposite.
func (s Service) stillRegistered(now []Instance) []Instance {
	var left []Instance
	for _, i := range s.Instances {
		n := slices.IndexFunc(now, func(x Instance) bool { return x.key() == i.key() && x.HostPort() == i.HostPort() })
		if n < 0 {
			continue
		}
		if i.InRotation() && !now[n].InRotation() {
			i.Status = now[n].Status
		}
		if now[n].Weight == 0 {
			i.Weight = 0
		}
		left = append(left, i)
	}
	return left
}

// block returns the part of an entry that can reach nginx's configuration, as a service
// whose instances include the held ones.
func (e Entry) block() Service {
	s := Service{Name: e.Name, Spec: e.Spec, Instances: e.Instances} // they are sorted, and never changed
	if len(e.Held) > 0 {
		s.Instances = slices.Concat(e.Instances, e.Held)
		slices.SortFunc(s.Instances, compareInstances)
	}
	return s
}

func equal(a, b Service) bool {
	return a.Spec.Equal(b.Spec) && slices.Equal(a.Instances, b.Instances)
}

// alike reports whether two services are equal, ignoring the status of checks: a service
// whose checks flap has not changed.
func alike(a, b Service) bool {
	return a.Spec.Equal(b.Spec) && slices.EqualFunc(a.Instances, b.Instances, func(x, y Instance) bool {
		x.Status, x.Weight = y.Status, y.Weight
		return x == y
	})
}

// Free reports whether a TCP address of this machine is free to listen on. "[::]" is IPv6
// alone, as for nginx.
func Free(address string) bool {
	network := "tcp4"
	if strings.HasPrefix(address, "[") {
		network = "tcp6"
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	listener.Close()
	return true
}
