package endpoints

import (
	"time"

	"lbctl/internal/policy"
)

// RefusedPolicy is the version of the operator's policy for all services that nginx refuses, or
// that makes a template fail. The version that nginx accepted last counts instead.
type RefusedPolicy struct {
	Index uint64          `json:"index"` // Consul's, of the refused version
	Why   string          `json:"why"`   // the message of nginx or the template
	Kept  policy.Document `json:"kept"`  // what counts instead; zero: nothing
}

type refusedDefault struct {
	RefusedPolicy
	times int // in a row

	// trying: the refused version counts, to find out whether nginx accepts it now.
	trying bool
	tried  policy.Document
	again  time.Time // the earliest time for a trial
	next   time.Time // again, if anybody will ask for it; else zero
}

// DefaultPolicy returns which document counts as the operator's policy for all services, given
// its newest version and Consul's index of it: the newest one, unless RefuseDefaultPolicy was
// called for it. Then it is the kept one. When enough time has passed the newest one counts again,
// as a trial; it is refused all the same until NginxAccepted.
//
// Call it when Changed fires or NextDeadline passes.
func (t *Table) DefaultPolicy(now time.Time, index uint64, newest policy.Document) (counts policy.Document, refused *RefusedPolicy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.quarantine.refusedDefault
	if r == nil {
		return newest, nil
	}
	if r.Index != index {
		t.quarantine.refusedDefault = nil // an operator has written another version, and waits for it
		notify(t.unsaved)
		return newest, nil
	}
	copied := r.RefusedPolicy
	if !r.trying && now.Before(r.again) {
		r.next = r.again
		return r.Kept, &copied
	}
	r.trying, r.tried, r.next = true, newest, time.Time{}
	return newest, &copied
}

// ForgetDefaultPolicy forgets the refused version, because the document is gone or its newest
// version can't be read.
func (t *Table) ForgetDefaultPolicy() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quarantine.refusedDefault != nil {
		t.quarantine.refusedDefault = nil
		notify(t.unsaved)
	}
}

// AcceptedDefaultPolicy returns the document of the operator's policy for all services that nginx
// accepted last; the zero one if there was none.
func (t *Table) AcceptedDefaultPolicy() policy.Document {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.acceptedDefault()
}

func (t *Table) acceptedDefault() policy.Document {
	var older policy.Document
	known := false
	for _, name := range t.names() {
		accepted, ok := t.quarantine.accepted[name]
		if !ok {
			continue
		}
		said := accepted.service.Policy.Layer(policy.LevelDefault)
		if t.quarantine.refused[name] == nil && t.records[name].listed {
			return said
		}
		// A service in quarantine, or one that has left Consul, may have an older document.
		if !known {
			older, known = said, true
		}
	}
	return older
}

// RefuseDefaultPolicy is called when nginx refuses the version with Consul's index of the
// operator's policy for all services, whatever else has changed. DefaultPolicy then returns the one
// that nginx accepted last. Changed fires for that.
//
// It returns false if the version was refused before and has only been tried again.
func (t *Table) RefuseDefaultPolicy(now time.Time, index uint64, why string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &refusedDefault{RefusedPolicy: RefusedPolicy{Index: index, Why: why}, times: 1}
	before := t.quarantine.refusedDefault
	again := before != nil && before.Index == index
	if again {
		if !before.trying {
			return false // the configuration is from before the refusal
		}
		r.Kept, r.times = before.Kept, before.times+1
	} else {
		r.Kept = t.acceptedDefault()
	}
	r.again = now.Add(pause(retrySame, retrySameMax, r.times))
	t.quarantine.refusedDefault = r
	notify(t.changed)
	notify(t.unsaved)
	return !again
}

// acceptedTrial is called when nginx serves the entries. It returns true if they have the document
// that was tried again: it is no longer refused.
func (q *quarantine) acceptedTrial(entries []Entry) bool {
	r := q.refusedDefault
	if r == nil || !r.trying {
		return false
	}
	for _, e := range entries {
		if !e.Refused && e.Policy.Layer(policy.LevelDefault).Equal(r.tried) {
			q.refusedDefault = nil
			return true
		}
	}
	return false
}

// AsAccepted returns the entry as nginx accepted it last, with this document as the operator's
// policy for all services. Last must not be nil.
func (s Suspect) AsAccepted(layer policy.Layer) Entry {
	e := s.Entry
	e.Spec, e.Instances, e.Held = s.Last.Spec, s.Last.Instances, nil // the instances include held ones
	e.Revision, e.rotation = 0, nil
	return e.WithPolicy(layer)
}

// WithPolicy returns the entry with another layer of its policy.
func (e Entry) WithPolicy(layer policy.Layer) Entry {
	e.Policy = e.Policy.Replace(layer)
	return e
}
