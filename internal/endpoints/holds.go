package endpoints

import (
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
	// Until is when it is let go; zero while Consul can't be trusted.
	Until time.Time `json:"until,omitzero"`
}

// Held is all held instances, sorted by service, node and id.
func (t *Table) Held() []HeldInstance {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []HeldInstance
	for name, r := range t.records {
		for _, h := range r.held {
			held := HeldInstance{Service: name, Instance: h.instance, Reason: h.reason, Since: h.since}
			if r.good != nil {
				held.Protocol = r.good.Protocol
			}
			if t.trust == (Trust{}) {
				held.Until = h.until
			}
			all = append(all, held)
		}
	}
	slices.SortFunc(all, func(a, b HeldInstance) int {
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return compareInstances(a.Instance, b.Instance)
	})
	return all
}

// Release lets one held instance go, and reports whether it was held. It takes
// effect with the next observation, which Changed asks for.
func (t *Table) Release(service, node, instance string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.records[service]
	if !ok || r.held[id{node, instance}] == nil {
		return false
	}
	t.drop(service, id{node, instance})
	notify(t.changed)
	return true
}

// Accept is the operator's word that what vanished is gone: all held instances
// are let go, whether Consul can be trusted or not. It returns how many there
// were.
func (t *Table) Accept() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for name, r := range t.records {
		for k := range r.held {
			t.drop(name, k)
			n++
		}
	}
	if n > 0 {
		notify(t.changed)
	}
	return n
}
