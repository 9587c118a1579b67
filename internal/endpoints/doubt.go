package endpoints

import (
	"maps"
	"slices"
	"time"
)

// SetDoubts says about which services Consul's last word may be out of date, by
// name, each with the reason for people. They are LastKnownGood, and all others are
// not, from the next observation on, which must have them as they were last known.
func (t *Table) SetDoubts(doubts map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.confirm(time.Now()) // what isn't in doubt until now
	t.doubts = maps.Clone(doubts)
}

// Remembered is a service as it was last known, from an observation or from the
// snapshot, without those of its instances that are held; false for one that the
// table doesn't know. Observing it again changes nothing.
func (t *Table) Remembered(name string) (Service, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.records[name]
	if !ok {
		return Service{}, false
	}
	return Service{Name: name, Spec: r.spec(), Instances: slices.Clone(r.instances), OK: r.good != nil}, true
}
