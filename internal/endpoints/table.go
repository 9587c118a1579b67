package endpoints

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Table turns observations of the catalog into the services to be served. It is safe for
// use by several goroutines.
type Table struct {
	opts Options

	changed  chan struct{}
	observed chan struct{}
	unsaved  chan struct{}

	mu       sync.Mutex
	records  map[string]*record // by service name
	sorted   []string           // the names of records; nil: not sorted yet
	entries  []Entry
	seen     time.Time // the last observation, or that of the snapshot
	live     bool      // there was an observation since lbctl started
	departed bool      // without one: the entries differ from the snapshot's
	revision uint64    // the newest revision of an entry

	guard        guard
	confirmation confirmation
	ejections    ejections
	ramps        ramps
	quarantine   quarantine
	claims       claims
	unusable     map[string][]Unusable // the argument of SetUnusable

	file snapshotFile
}

func newTable(path string, opts Options) *Table {
	opts.complete()
	return &Table{
		opts:         opts,
		changed:      make(chan struct{}, 1),
		observed:     make(chan struct{}, 1),
		unsaved:      make(chan struct{}, 1),
		records:      map[string]*record{},
		guard:        newGuard(opts),
		confirmation: confirmation{maxStale: opts.MaxStale},
		ejections:    ejections{share: opts.MaxEjected, failing: map[string]map[id]failing{}, total: map[string]map[Ejector]int{}},
		ramps:        ramps{time: opts.SlowStart, services: map[string]ramping{}, suspects: map[string]map[id]bool{}},
		quarantine:   newQuarantine(),
		file:         snapshotFile{path: path, interval: opts.MaxStale / 10},
	}
}

// Observe takes the whole catalog as it is at now and returns the services to be served,
// sorted by name. Observations must be complete: a service that is absent counts as one
// without instances.
//
// The table keeps the services' contents, so the caller must not change them any more. A
// service with an unchanged Revision costs almost no time.
//
// Call Observe again with the same services when Changed fires or NextDeadline passes.
//
// The entries are shared, so the caller must not change them.
func (t *Table) Observe(now time.Time, services []Service) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := newObservation(services, t.records)
	t.dropUnbalanced(o)
	t.guard.observe(now, o, t.confirmation.trust, t.missing(o))
	t.remember(o)
	t.seen, t.live = now, true
	t.confirmation.note(now, t.records)
	t.entries = t.compose(now, o)
	notify(t.observed)
	notify(t.unsaved)
	return t.entries
}

// Vanishing returns how many instances in rotation Observe would find gone from the
// catalog. It changes nothing. If it is above 0, the caller checks whether Consul filters
// its answers, and calls SetTrust, before it calls Observe.
func (t *Table) Vanishing(services []Service) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := newObservation(services, t.records)
	n := 0
	for _, m := range t.missing(o) {
		if s, ok := o.services[m.service]; !ok || !s.unbalanced() {
			n++
		}
	}
	return n
}

// Entries returns the result of the last observation. Before the first one it returns the
// snapshot's entries, as stale. They are shared, so the caller must not change them.
func (t *Table) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries
}

// Live reports whether there was an observation since lbctl started. Before, Entries has what the
// snapshot says, which may lack the newest services.
func (t *Table) Live() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}

// Changed fires when Observe would return other entries for the same services, because of
// trust, a probe, or the operator.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// Observed fires when the instances to probe may have changed, because of an observation
// or of trust. It is for one reader.
func (t *Table) Observed() <-chan struct{} { return t.observed }

// NextDeadline returns when Observe will return other entries for the same services
// because of time alone: a hold ends, a weight rises, a service expires, or a refused
// service may be tried again. It is zero if nothing will change.
func (t *Table) NextDeadline() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := earlier(t.quarantine.nextTrial(), t.ramps.nextStep())
	if t.confirmation.trust == (Trust{}) {
		next = earlier(next, t.guard.nextDeadline())
	}
	if t.opts.MaxStale <= 0 {
		return next
	}
	for service, r := range t.records {
		if !r.expired {
			next = earlier(next, t.confirmation.expiry(service, r))
		}
	}
	return next
}

// earlier returns the earlier of two times; zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// names returns the names of records, sorted.
func (t *Table) names() []string {
	if t.sorted == nil {
		t.sorted = slices.Sorted(maps.Keys(t.records))
	}
	return t.sorted
}

// dropUnbalanced removes services that are registered but no longer to be balanced.
func (t *Table) dropUnbalanced(o *observation) {
	for name, s := range o.services {
		if s.unbalanced() {
			t.forget(name)
			t.guard.forget(name)
			delete(o.services, name)
		}
	}
}

// forget removes everything about a service except what the guard knows.
func (t *Table) forget(service string) {
	if t.records[service] == nil {
		return
	}
	delete(t.records, service)
	t.sorted = nil
	delete(t.ejections.failing, service)
	delete(t.ejections.total, service)
	delete(t.ramps.services, service)
	delete(t.ramps.suspects, service)
	t.quarantine.forget(service)
}

// missing returns the instances that are gone from the catalog although they were in
// rotation in Consul and served traffic or would have, and were not ejected.
func (t *Table) missing(o *observation) []missing {
	var all []missing
	for _, name := range t.names() {
		if !o.changed(name) {
			continue
		}
		r := t.records[name]
		if r.good == nil {
			continue // never served, as its settings could not be used
		}
		for _, i := range r.instances {
			if i.InRotation() && (i.Weight > 0 || r.serves(i)) && !t.ejections.isOut(name, i) && !o.has(name, i.key()) && !o.takenOver(name, i) {
				all = append(all, missing{name, i})
			}
		}
	}
	return all
}

// remember records the observation, so that the next one can be compared with it.
func (t *Table) remember(o *observation) {
	for name, s := range o.services {
		r := t.records[name]
		if r == nil {
			r = &record{}
			t.records[name], t.sorted = r, nil
		}
		if !r.isAt(s.Revision) {
			r.instances, r.inRotation, r.revision = s.Instances, s.InRotation(), s.Revision
		}
		r.heard, r.listed = true, true
		if s.OK && (r.good == nil || !r.good.Equal(s.Spec)) {
			good := s.Spec
			r.good = &good
		}
		if !s.OK && r.good != nil {
			r.good.keepMetadata(s.Policy)
		}
	}
	for name, r := range t.records {
		if _, ok := o.services[name]; ok {
			continue
		}
		r.instances, r.inRotation, r.revision = nil, 0, 0
		r.heard, r.listed = true, false
		if len(t.guard.holds[name]) == 0 {
			t.forget(name)
		}
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
