package endpoints

import (
	"slices"
	"strings"
	"time"
)

// compose makes the entries from the records; o is nil until the first observation.
func (t *Table) compose(now time.Time, o *observation) []Entry {
	entries := make([]Entry, 0, len(t.records))
	for _, name := range t.names() {
		r := t.records[name]
		s := Service{Name: name, Instances: r.instances, OK: true}
		if o != nil {
			if seen, ok := o.services[name]; ok {
				s = seen
			}
		}
		if o == nil || !t.isReusable(r, s) {
			r.entry, r.madeAt = t.entry(now, r, s, o == nil), s.Revision
		}
		entries = append(entries, r.entry)
	}
	t.quarantine.apply(now, entries, t.records)
	t.claims.settle(entries)
	for n := range entries {
		t.finish(&entries[n])
	}
	return entries
}

// isReusable reports whether the service's entry would be the same again: the service was
// and is healthy, and is unchanged in Consul. With thousands of services, that is true for
// nearly all of them at any time.
func (t *Table) isReusable(r *record, s Service) bool {
	e := &r.entry
	wasPlain := e.State == Fresh && r.state == Fresh && !e.Expired && len(e.Ejections) == 0 && len(e.Ramps) == 0
	return wasPlain && s.Revision != 0 && s.Revision == r.madeAt &&
		t.confirmation.trust == (Trust{}) && t.confirmation.unconfirmed[s.Name] == "" &&
		len(t.guard.holds[s.Name]) == 0 && len(t.ejections.failing[s.Name]) == 0 &&
		t.quarantine.refused[s.Name] == nil && t.ramps.current(s.Name, s.Policy.General())
}

// entry makes a service's entry, before quarantine and claims. restored is true if the
// service comes from the snapshot.
func (t *Table) entry(now time.Time, r *record, s Service, restored bool) Entry {
	e := Entry{Service: s}
	e.Spec, e.Revision = r.spec(), 0
	e.Held = t.guard.held(s.Name)
	r.peak = max(r.peak, len(r.instances)+len(e.Held))
	e.Peak = r.peak
	e.Ejections = t.ejections.of(e)
	e.State, e.Reason = t.assess(now, r, &e, restored)
	if restored {
		// Stale begins with this process. The former state continues after the first
		// observation.
		e.Since = t.seen
	} else {
		if e.State != r.state || r.since.IsZero() {
			r.state, r.since = e.State, now
		}
		e.Since = r.since
	}
	e.Ramps = t.ramps.update(now, e)
	return e
}

// assess returns the state of a service's entry, and the reason. It sets the fields of the
// entry that follow from the state.
func (t *Table) assess(now time.Time, r *record, e *Entry, restored bool) (State, string) {
	state := Fresh
	var reasons []string
	switch {
	case restored:
		state = Stale
		reasons = append(reasons, "as of "+t.seen.Format(time.DateTime)+", from the snapshot: Consul has not answered since lbctl started")
	case t.confirmation.trust.Refused:
		state = Stale
		reasons = append(reasons, "Consul refuses the token or the certificate, so its last answer counts")
	case t.confirmation.trust.NoLeader:
		state = Stale
		reasons = append(reasons, "Consul has no leader or does not answer, so its last answer counts")
	case t.confirmation.unconfirmed[e.Name] != "":
		state = LastKnownGood
		reasons = append(reasons, t.confirmation.unconfirmed[e.Name])
	}
	if !e.OK {
		state = Quarantined
		why := "no instance has valid metadata"
		if len(e.Problems) > 0 {
			why = e.Problems[0]
		}
		kept := "not served, because there is no earlier good state"
		if r.good != nil {
			kept = "its last good routes are kept"
		}
		reasons = append(reasons, kept+": "+why)
	}
	if held := t.guard.reason(e.Name); held != "" {
		state = Held
		reasons = append(reasons, held)
	}
	expired := t.confirmation.expired(now, e.Name, r)
	r.expired, e.Expired = expired != "", expired != ""
	if e.Expired {
		return Stale, strings.Join(append(reasons, expired), "; ")
	}
	if why := e.panicReason(t.opts.PanicThreshold); why != "" && r.good != nil {
		state = Panic
		e.Panicking = true
		for n := range e.Ejections {
			e.Ejections[n].Kept = true
		}
		reasons = append(reasons, why)
	}
	return state, strings.Join(reasons, "; ")
}

// finish computes an entry's rotation, once for all later uses, and its Revision.
func (t *Table) finish(e *Entry) {
	e.Unusable = t.unusable[e.Name]
	if e.Revision != 0 {
		return // reused
	}
	r := t.records[e.Name]
	rotation, last := e.Rotation(), &r.final
	if last.revision == 0 || !slices.Equal(last.instances, e.Instances) || !slices.Equal(last.held, e.Held) || !slices.Equal(last.rotation, rotation) {
		t.revision++
		*last = final{t.revision, e.Instances, e.Held, rotation}
	}
	e.Revision, e.rotation = last.revision, last.rotation
	if t.quarantine.refused[e.Name] == nil {
		r.entry.Revision, r.entry.rotation = e.Revision, e.rotation
	}
}
