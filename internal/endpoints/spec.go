package endpoints

import "slices"

// Spec has all settings of a service, but not its instances. They come from the service's
// metadata. A Spec is compared, stored and quarantined as one value.
//
// Assignment copies a Spec. The copies share the content of slices and maps, so nobody may
// change it.
//
// To add a field, add it here and to Equal: see CONTRIBUTING.md.
type Spec struct {
	// Protocol is empty if the service is not balanced, or if its metadata was never valid.
	Protocol Protocol `json:"protocol,omitempty"`
	Routes   []Route  `json:"routes,omitempty"`
	Port     int      `json:"port,omitempty"`    // tcp: the port to listen on
	Default  bool     `json:"default,omitempty"` // it gets the requests that no route of its family matches
	// ByReload: lb-endpoints says that nginx must not ask for its servers.
	ByReload bool `json:"by_reload,omitempty"`
	// MinInstances is how many instances stay in rotation when more vanish; 0 means
	// Options.MinInstances.
	MinInstances int `json:"min_instances,omitempty"`
	// Check is how lbctl probes an instance.
	Check Check `json:"check,omitempty"`
}

// Equal reports whether both have the same content. A test ensures that it compares every
// field.
func (s Spec) Equal(o Spec) bool {
	return s.SameRouting(o) && s.ByReload == o.ByReload && s.MinInstances == o.MinInstances && s.Check == o.Check
}

// SameRouting reports whether both have the same protocol, routes, port and default place.
func (s Spec) SameRouting(o Spec) bool {
	return s.Protocol == o.Protocol && s.Port == o.Port && s.Default == o.Default && slices.Equal(s.Routes, o.Routes)
}
