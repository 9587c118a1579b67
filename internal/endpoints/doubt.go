package endpoints

import (
	"maps"
	"slices"
)

// SetDoubts says about which services Consul's last word may be out of date, by
// name, each with the reason for people. They are stale, and all others are not,
// from the next observation on, which must have them as they were last known.
func (t *Table) SetDoubts(doubts map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
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
	s := Service{Name: name, Instances: slices.Clone(r.instances)}
	if r.good != nil {
		s.OK = true
		s.Protocol, s.Routes, s.Port, s.Default = r.good.Protocol, slices.Clone(r.good.Routes), r.good.Port, r.good.Default
	}
	return s, true
}
