package endpoints

import (
	"maps"
	"slices"
)

// Unusable is an instance in rotation that nginx can't send traffic to, because its address
// is a host name that can't be resolved, or an address that no instance may have.
type Unusable struct {
	Node   string `json:"node"`
	ID     string `json:"id"`
	Reason string `json:"reason"` // for people: "its address can't be resolved"
}

// WhyUnusable returns why nginx can't send traffic to an instance; empty if it can.
func (e Entry) WhyUnusable(i Instance) string {
	for _, u := range e.Unusable {
		if u.Node == i.Node && u.ID == i.ID {
			return u.Reason
		}
	}
	return ""
}

// Usable returns the instances of Rotation that nginx can send traffic to. The caller must
// not change them.
func (e Entry) Usable() []Instance {
	in := e.Rotation()
	if len(e.Unusable) == 0 {
		return in
	}
	return slices.DeleteFunc(slices.Clone(in), func(i Instance) bool { return e.WhyUnusable(i) != "" })
}

// SetUnusable sets the instances in rotation that nginx can't send traffic to, by service, and
// returns the updated entries. The caller must not change them, nor the argument.
func (t *Table) SetUnusable(services map[string][]Unusable) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !maps.EqualFunc(t.unusable, services, slices.Equal) {
		t.unusable = services
		t.entries = slices.Clone(t.entries)
		for n := range t.entries {
			t.entries[n].Unusable = services[t.entries[n].Name]
		}
	}
	return t.entries
}
