package endpoints

import "slices"

// Spec is everything that is said of a service, except of its instances: in its
// metadata today, in the operator's policy later. It is compared, stored, and put
// into quarantine as one value.
//
// A Spec is copied by assignment. What its slices and maps refer to is shared by
// the copies, so it must not be changed.
//
// To add a field, add it here and to Equal: see CONTRIBUTING.md.
type Spec struct {
	// Protocol is empty when the service is not balanced, or when its metadata
	// was never understood.
	Protocol Protocol `json:"protocol,omitempty"`
	Routes   []Route  `json:"routes,omitempty"`
	Port     int      `json:"port,omitempty"`    // tcp: the port to listen on
	Default  bool     `json:"default,omitempty"` // serves what no route of its family matches
	// ByReload: lb-endpoints says that nginx must not ask for its servers.
	ByReload bool `json:"by_reload,omitempty"`
	// MinInstances is how many instances are kept in rotation when more vanish;
	// 0 means Options.MinInstances.
	MinInstances int `json:"min_instances,omitempty"`
	// Check is how lbctl itself asks an instance whether it can serve.
	Check Check `json:"check,omitempty"`
}

// Equal reports whether both say the same. A test makes sure that every field counts.
func (s Spec) Equal(o Spec) bool {
	return s.SameRouting(o) && s.ByReload == o.ByReload && s.MinInstances == o.MinInstances && s.Check == o.Check
}

// SameRouting reports whether traffic finds its way to both alike: by protocol,
// routes, port and default place.
func (s Spec) SameRouting(o Spec) bool {
	return s.Protocol == o.Protocol && s.Port == o.Port && s.Default == o.Default && slices.Equal(s.Routes, o.Routes)
}
