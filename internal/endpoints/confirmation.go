package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Trust says why Consul's answers can't be taken at their word now. The zero
// value is full trust.
type Trust struct {
	// Filtered: answers are filtered by ACLs (QueryMeta's
	// ResultsFilteredByACLs), so what is absent may just be invisible.
	Filtered bool
	// NoLeader: the servers have no leader, or don't answer at all.
	NoLeader bool
	// Refused: Consul refuses the token or the certificate. NoLeader is true, too.
	Refused bool
}

// confirmation says which services Consul stands by now, and which ones it has not
// confirmed for too long.
type confirmation struct {
	trust       Trust
	unconfirmed map[string]string // by service, why Consul's last word on it may be out of date
	maxStale    time.Duration     // Options.MaxStale
}

// confirms reports whether Consul stands by what it said last of a service: it has said
// it to this process, and can be taken at its word now.
func (c *confirmation) confirms(service string, r *record) bool {
	return r.heard && !c.trust.NoLeader && c.unconfirmed[service] == "" && (r.listed || !c.trust.Filtered)
}

// note records until when Consul stood by what it said. Call it before anything that
// ends that: hours may pass between two observations of a quiet catalog.
func (c *confirmation) note(now time.Time, records map[string]*record) {
	for service, r := range records {
		if c.confirms(service, r) {
			r.confirmed = now
		}
	}
}

// expiry is when a service will have gone unconfirmed for too long; zero if nothing
// leads there.
func (c *confirmation) expiry(service string, r *record) time.Time {
	if c.maxStale <= 0 || c.confirms(service, r) {
		return time.Time{}
	}
	return r.confirmed.Add(c.maxStale)
}

// expired says that a service has gone unconfirmed for too long, "" when it hasn't.
func (c *confirmation) expired(now time.Time, service string, r *record) string {
	at := c.expiry(service, r)
	if at.IsZero() || now.Before(at) {
		return ""
	}
	return fmt.Sprintf("its instances get no traffic, for Consul has not confirmed them since %s, longer than %s",
		r.confirmed.Local().Format(time.DateTime), c.maxStale)
}

// SetTrust says whether Consul can be taken at its word. While it can't, nothing
// vanishes, no hold ends by time, and probes release none; what vanished within the
// GuardWindow before comes back. When trust returns, holds run for a full GuardHold
// again, so that data has time to arrive.
func (t *Table) SetTrust(now time.Time, trust Trust) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if trust == t.confirmation.trust {
		return
	}
	t.confirmation.note(now, t.records)
	t.confirmation.trust = trust
	if trust == (Trust{}) {
		t.guard.restart(now)
		notify(t.observed)
	}
	notify(t.changed)
}

// Trust is what SetTrust said last. A table restored from a snapshot that was written
// while answers were filtered distrusts them until SetTrust is called.
func (t *Table) Trust() Trust {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.confirmation.trust
}

// SetUnconfirmed says about which services Consul's last word may be out of date, by
// name, each with the reason for people. They are LastKnownGood, and all others are not,
// from the next observation on, which must have them as they were last known.
func (t *Table) SetUnconfirmed(services map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.confirmation.note(time.Now(), t.records)
	t.confirmation.unconfirmed = maps.Clone(services)
}

// Remembered is a service as it was last known, from an observation or from the
// snapshot, without those of its instances that are held; false for one that the table
// doesn't know. Observing it again changes nothing.
func (t *Table) Remembered(name string) (Service, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.records[name]
	if !ok {
		return Service{}, false
	}
	return Service{Name: name, Spec: r.spec(), Instances: slices.Clone(r.instances), OK: r.good != nil}, true
}

// Reconsider lets time, probes and the operator change what the snapshot remembers, as
// long as there was nothing to observe: call it when Changed fires or NextDeadline
// passes. It reports whether what gets traffic was ever different from what the snapshot
// has.
func (t *Table) Reconsider(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live {
		return false
	}
	before := t.entries
	t.entries = t.compose(now, nil)
	t.departed = t.departed || !slices.EqualFunc(before, t.entries, func(a, b Entry) bool {
		return slices.Equal(a.Rotation(), b.Rotation())
	})
	notify(t.unsaved)
	return t.departed
}
