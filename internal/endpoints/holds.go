package endpoints

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// HeldInstance is an instance that Consul no longer lists and that is kept in
// rotation.
type HeldInstance struct {
	Service  string   `json:"service"`
	Protocol Protocol `json:"protocol"` // the service's
	Instance Instance `json:"instance"`
	Reason   string   `json:"reason"`
	// Since is when it vanished.
	Since time.Time `json:"since"`
	// Until is when it is released; zero while Consul can't be trusted.
	Until time.Time `json:"until,omitzero"`
}

// Held is all held instances, sorted by service, node and id.
func (t *Table) Held() []HeldInstance {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []HeldInstance
	for service, holds := range t.guard.holds {
		for _, h := range holds {
			held := HeldInstance{Service: service, Protocol: t.records[service].spec().Protocol, Instance: h.instance, Reason: h.reason, Since: h.since}
			if t.confirmation.trust == (Trust{}) {
				held.Until = h.until
			}
			all = append(all, held)
		}
	}
	slices.SortFunc(all, func(a, b HeldInstance) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), compareInstances(a.Instance, b.Instance))
	})
	return all
}

// Release ends the hold of one instance, and reports whether it was held. It takes
// effect with the next observation, which Changed asks for.
func (t *Table) Release(service, node, instance string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.guard.release(service, id{node, instance}) {
		return false
	}
	notify(t.changed)
	return true
}

// Accept is the operator's word that what vanished is gone: the held instances of a service,
// or of all if service is "", are released, whether Consul can be trusted or not. It returns
// how many there were.
func (t *Table) Accept(service string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for name, holds := range t.guard.holds {
		if service != "" && service != name {
			continue
		}
		for k := range holds {
			t.guard.release(name, k)
			n++
		}
	}
	if n > 0 {
		notify(t.changed)
	}
	return n
}
