package endpoints

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// When what was refused is tried again. Each time that it fails, the pause is
// twice as long.
const (
	retrySame    = time.Minute // what is still the same: the cause may lie outside
	retrySameMax = 16 * time.Minute
	// What has changed is tried at once the first time. Then it waits, so that a
	// service that changes all the time doesn't keep nginx busy with refusing it.
	retryOther    = time.Second
	retryOtherMax = time.Minute
	// A port is looked at before it is tried: a failed reload takes seconds, and
	// holds up everybody.
	retryPort    = 5 * time.Second
	retryPortMax = time.Minute
)

// Refusal is why a service can't be served as its entry says.
type Refusal struct {
	Reason string // nginx's own words, or the template's
	// Listen is the address that nginx was to listen on for the service and that
	// another process has; empty for any other reason.
	Listen string
}

// refusal is a service in quarantine.
type refusal struct {
	Refusal
	said  Service // what was refused
	since time.Time
	times int // in a row
	// trying is while it is served as it says, to see whether that is taken.
	trying bool
	other  time.Time // not tried before then, if it says something else
	same   time.Time // nor before then, if it doesn't
	next   time.Time // the one that counts
}

// Refuse quarantines a service: its entry e, as Observe returned it, can't be
// served. The service keeps the last block that nginx took, or isn't served if
// there is none, until what it says has changed or enough time has passed. That
// takes effect with the next observation, which Changed asks for.
//
// It returns whether that is new: false when the same was refused before, and
// has only been tried again.
func (t *Table) Refuse(now time.Time, e Entry, why Refusal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.records[e.Name]
	if r == nil {
		return false
	}
	before := r.refused
	if before != nil && !before.trying {
		return false // e is from before it was taken out
	}
	f := &refusal{Refusal: why, said: r.says(e.Name), since: now, other: now, times: 1}
	if before != nil {
		f.since, f.times = before.since, before.times+1
		f.other = now.Add(pause(retryOther, retryOtherMax, f.times-1))
	}
	f.same = now.Add(pause(retrySame, retrySameMax, f.times))
	if why.Listen != "" {
		f.same = now.Add(pause(retryPort, retryPortMax, f.times))
	}
	n := slices.IndexFunc(t.entries, func(x Entry) bool { return x.Name == e.Name })
	if n < 0 || !alike(block(t.entries[n]), block(e)) {
		// Something else is on its way already. It stays away from the others
		// until they have moved, and then has its turn.
		f.other, f.same = now.Add(retryOther), now.Add(retryOther)
	}
	f.next = f.same
	r.refused = f
	notify(t.changed)
	return before == nil || !alike(before.said, f.said)
}

// pause doubles from least on, for the first, second... time.
func pause(least, most time.Duration, times int) time.Duration {
	return min(least<<min(times-1, 16), most)
}

// RetryRefused has everything that was refused tried with the next observation:
// what refused it has changed.
func (t *Table) RetryRefused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.records {
		if r.refused != nil {
			r.refused.other, r.refused.same = time.Time{}, time.Time{}
		}
	}
}

// Took says that nginx serves the entries: they are what a service goes back to
// when something later is refused.
func (t *Table) Took(entries []Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range entries {
		r := t.records[e.Name]
		if r == nil || e.Refused {
			continue
		}
		if r.refused == nil && r.tookFrom != nil && unchanged(*r.tookFrom, e.Service) && len(e.Held) == 0 {
			continue
		}
		took := block(e)
		if f := r.refused; f != nil {
			if f.trying {
				r.refused = nil
			}
			// If not, it was on its way while something later was refused, and is
			// what to go back to now.
			notify(t.changed)
		}
		r.took, r.tookFrom = &took, nil
		if len(e.Held) == 0 {
			said := e.Service
			r.tookFrom = &said
		}
	}
}

// Suspect is an entry that is not what nginx took.
type Suspect struct {
	Entry
	// Last is what nginx took of the service last; nil when it never took any.
	Last *Service
}

// Suspects are those of the entries that can be at fault when nginx refuses
// them all: the ones that are not as nginx took them. Services that it never
// took come last.
func (t *Table) Suspects(entries []Entry) []Suspect {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changed, added []Suspect
	for _, e := range entries {
		var last *Service
		if r := t.records[e.Name]; r != nil {
			last = r.took
		}
		switch {
		case e.Refused:
		case last == nil:
			added = append(added, Suspect{Entry: e})
		case !equal(*last, block(e)):
			changed = append(changed, Suspect{e, last})
		}
	}
	return append(changed, added...)
}

// quarantine puts the last block that nginx took in the place of each entry that
// was refused, unless it is time to try that one again.
func (t *Table) quarantine(now time.Time, entries []Entry) {
	for n := range entries {
		e := &entries[n]
		r := t.records[e.Name]
		f := r.refused
		if f == nil {
			continue
		}
		if !f.trying {
			f.trying = t.mayTry(now, f, r.says(e.Name))
		}
		reason := "tried again after it was refused: "
		if !f.trying {
			reason = e.fallBack(r.took)
		}
		if reason += f.Reason; e.Reason != "" {
			reason += "; " + e.Reason
		}
		// The record's state goes on from here once the quarantine is over.
		r.state, r.since = Quarantined, f.since
		e.State, e.Reason, e.Since = Quarantined, reason, f.since
	}
}

// mayTry reports whether what a service says now is to be tried. If not, f.next
// is when to ask again.
func (t *Table) mayTry(now time.Time, f *refusal, says Service) bool {
	f.next = f.same
	if !alike(f.said, says) {
		f.next = f.other
	}
	if now.Before(f.next) {
		return false
	}
	if f.Listen != "" && f.said.Port == says.Port && !t.free(f.Listen) {
		f.next = now.Add(retryPort)
		return false
	}
	return true
}

// nextTrial is when the next of what was refused may be tried; zero for never.
func (t *Table) nextTrial() time.Time {
	var next time.Time
	for _, r := range t.records {
		if f := r.refused; f != nil && !f.trying && (next.IsZero() || f.next.Before(next)) {
			next = f.next
		}
	}
	return next
}

// fallBack makes the entry what nginx took last, and says so.
func (e *Entry) fallBack(took *Service) string {
	e.Refused = true
	if took == nil || took.Protocol == "" {
		e.Spec = Spec{}
		return "not served, for there is no earlier good state: "
	}
	e.Spec = took.Spec
	e.Instances, e.Held = took.still(e.Instances), took.still(e.Held)
	return "its last good state is kept: "
}

// still is those instances of the block that are registered now, at the same
// address: where one was may be another service by now. One that has left the
// rotation since leaves it here too; none comes back to it.
func (s Service) still(registered []Instance) []Instance {
	var left []Instance
	for _, i := range s.Instances {
		n := slices.IndexFunc(registered, func(x Instance) bool { return x.key() == i.key() && x.HostPort() == i.HostPort() })
		if n < 0 {
			continue
		}
		if now := registered[n]; i.InRotation() && !now.InRotation() {
			i.Status = now.Status
		}
		left = append(left, i)
	}
	return left
}

// says is the service as Consul and the guard have it, whatever is served.
func (r *record) says(name string) Service {
	e := Entry{Service: Service{Name: name, Spec: r.spec(), Instances: r.instances}}
	for _, h := range r.held {
		e.Held = append(e.Held, h.instance)
	}
	return block(e)
}

// block is what of an entry can make its way into nginx's configuration.
func block(e Entry) Service {
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

// alike is equal, but for what checks do to instances: a service that flaps does
// not say anything new.
func alike(a, b Service) bool {
	return a.Spec.Equal(b.Spec) && slices.EqualFunc(a.Instances, b.Instances, func(x, y Instance) bool {
		x.Status, x.Weight = y.Status, y.Weight
		return x == y
	})
}

// free reports whether nobody listens on a TCP address of this machine.
func free(address string) bool {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	listener.Close()
	return true
}
