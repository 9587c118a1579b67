package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Trust says why Consul's answers may be incomplete or outdated. The zero value means that
// they are trusted.
type Trust struct {
	// Filtered: answers are filtered by ACLs (QueryMeta's ResultsFilteredByACLs), so
	// services and instances may exist that the token can't see.
	Filtered bool
	// NoLeader: the Consul servers have no leader, or don't answer.
	NoLeader bool
	// Refused: Consul refuses the token or the certificate. NoLeader is then true too.
	Refused bool
}

// confirmation knows which services Consul confirms now, and which ones it has not
// confirmed for too long.
type confirmation struct {
	trust       Trust
	unconfirmed map[string]string // by service: why Consul's last answer may be out of date
	maxStale    time.Duration     // Options.MaxStale
}

// confirms reports whether Consul confirms the last state of a service: it has answered
// this process about it, and can be trusted now.
func (c *confirmation) confirms(service string, r *record) bool {
	return r.heard && !c.trust.NoLeader && c.unconfirmed[service] == "" && (r.listed || !c.trust.Filtered)
}

// note records that Consul confirms services until now. Call it before trust or answers
// change: hours may pass between two observations of a quiet catalog.
func (c *confirmation) note(now time.Time, records map[string]*record) {
	for service, r := range records {
		if c.confirms(service, r) {
			r.confirmed = now
		}
	}
}

// Ages returns how long ago Consul last confirmed each service, by name: 0 for a service that it
// confirms now. A service of the snapshot that Consul has never confirmed is not among them.
func (t *Table) Ages(now time.Time) map[string]time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	ages := make(map[string]time.Duration, len(t.records))
	for service, r := range t.records {
		if t.confirmation.confirms(service, r) {
			ages[service] = 0
		} else if !r.confirmed.IsZero() {
			ages[service] = now.Sub(r.confirmed)
		}
	}
	return ages
}

// expiry returns when a service will have been unconfirmed for MaxStale; zero if it is
// confirmed or there is no limit.
func (c *confirmation) expiry(service string, r *record) time.Time {
	if c.maxStale <= 0 || c.confirms(service, r) {
		return time.Time{}
	}
	return r.confirmed.Add(c.maxStale)
}

// expired returns a reason if a service has been unconfirmed for MaxStale, otherwise "".
func (c *confirmation) expired(now time.Time, service string, r *record) string {
	at := c.expiry(service, r)
	if at.IsZero() || now.Before(at) {
		return ""
	}
	return fmt.Sprintf("its instances get no traffic, because Consul has not confirmed them since %s, longer than %s",
		r.confirmed.Local().Format(time.DateTime), c.maxStale)
}

// SetTrust sets whether Consul can be trusted. While it can't, vanished instances are
// held, no hold ends by time, and probes release none; instances that vanished within the
// GuardWindow before come back. When Consul can be trusted again, holds run for a full
// GuardHold, so that data has time to arrive.
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

// Trust returns the last value of SetTrust. A table that is restored from a snapshot starts
// with Filtered if answers were filtered when the snapshot was written.
func (t *Table) Trust() Trust {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.confirmation.trust
}

// SetUnconfirmed sets for which services Consul's last answer may be out of date, by name,
// with the reason for people. From the next observation on, these services and no others
// are LastKnownGood; that observation must contain them as they were last known.
func (t *Table) SetUnconfirmed(services map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.confirmation.note(time.Now(), t.records)
	t.confirmation.unconfirmed = maps.Clone(services)
}

// Remembered returns a service as it was last known, from an observation or from the
// snapshot, without its held instances; false if the table doesn't know it. Observing it
// again changes nothing.
func (t *Table) Remembered(name string) (Service, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.records[name]
	if !ok {
		return Service{}, false
	}
	return Service{Name: name, Spec: r.spec(), Instances: slices.Clone(r.instances), OK: r.good != nil}, true
}

// Reconsider updates the entries of the snapshot for time, probes and operators' commands,
// before the first observation. Call it when Changed fires or NextDeadline passes. It
// reports whether the instances with traffic have ever differed from those in the
// snapshot.
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
