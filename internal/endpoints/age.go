package endpoints

import (
	"fmt"
	"slices"
	"time"
)

// confirms reports whether Consul stands by what it said last of a service: it
// has said it to this process, and can be taken at its word now.
func (t *Table) confirms(name string, r *record) bool {
	return r.heard && !t.trust.NoLeader && t.doubts[name] == "" && (r.listed || !t.trust.Filtered)
}

// confirm notes until when Consul stood by what it said. It comes before all that
// ends that: between two observations of a quiet catalog hours may pass.
func (t *Table) confirm(now time.Time) {
	for name, r := range t.records {
		if t.confirms(name, r) {
			r.confirmed = now
		}
	}
}

// expiry is when a service will have gone unconfirmed for too long; zero when it
// won't, as things are.
func (t *Table) expiry(name string, r *record) time.Time {
	if t.opts.MaxStale <= 0 || t.confirms(name, r) {
		return time.Time{}
	}
	return r.confirmed.Add(t.opts.MaxStale)
}

// expired says that a service has gone unconfirmed for too long, "" when it
// hasn't.
func (t *Table) expired(now time.Time, name string, r *record) string {
	at := t.expiry(name, r)
	if at.IsZero() || now.Before(at) {
		return ""
	}
	return fmt.Sprintf("its instances get no traffic, for Consul has not confirmed them since %s, longer than %s",
		r.confirmed.Local().Format(time.DateTime), t.opts.MaxStale)
}

// SaveInterval is how often Save should be called even though nothing changes, so
// that the age of what the snapshot says is known after a restart; 0 where it
// does not matter.
func (t *Table) SaveInterval() time.Duration { return t.opts.MaxStale / 10 }

// Reconsider lets time, the probes and the operator work on what the snapshot
// remembers, as long as there was nothing to observe: Changed and NextDeadline
// ask for it as for an observation. It reports whether what gets traffic has
// been anything else than what is remembered.
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
	return t.departed
}
