package endpoints

import (
	"slices"

	"lbctl/internal/policy"
)

// Spec has all settings of a service, but not its instances. They come from the service's
// metadata and from the operator's policies in Consul's KV. A Spec is compared, stored and
// quarantined as one value.
//
// Assignment copies a Spec. The copies share the content of slices and maps, so nobody may
// change it.
//
// To add a field, add it here and to Equal: see CONTRIBUTING.md.
type Spec struct {
	// Protocol is empty if the service is not balanced, or if its metadata was never valid.
	Protocol Protocol `json:"protocol,omitempty"`
	// Routes are the ways to the service. Those of a tcp service have a host only: it shares its
	// port with others, and gets the TLS connections whose clients name the host.
	Routes []Route `json:"routes,omitempty"`
	// Listeners are the names of the listeners where it is served, sorted; none: all listeners
	// of its protocol's family.
	Listeners []string `json:"listeners,omitempty"`
	Port      int      `json:"port,omitempty"`      // tcp: the port to listen on
	Terminate bool     `json:"terminate,omitempty"` // tcp: clients speak TLS, which nginx ends
	Default   bool     `json:"default,omitempty"`   // it gets the requests that no route of its family matches
	// Yields: another service may take the place of the default from it, and that is no problem.
	Yields bool `json:"yields,omitempty"`
	// Policy is how it is balanced.
	Policy policy.Settings `json:"policy,omitzero"`
}

// Equal reports whether both have the same content. A test ensures that it compares every
// field.
func (s Spec) Equal(o Spec) bool { return s.SameRouting(o) && s.Policy.Equal(o.Policy) }

// SameRouting reports whether both have the same protocol, routes, listeners, port and default
// place.
func (s Spec) SameRouting(o Spec) bool {
	return s.Protocol == o.Protocol && s.Port == o.Port && s.Terminate == o.Terminate && s.Default == o.Default && s.Yields == o.Yields &&
		slices.Equal(s.Routes, o.Routes) && slices.Equal(s.Listeners, o.Listeners)
}

// keepMetadata takes over the operator's policies from the settings of a service whose metadata
// has become invalid, and keeps what the metadata said before.
func (s *Spec) keepMetadata(now policy.Settings) {
	now = now.Replace(policy.Metadata(s.Policy.Layer(policy.LevelMetadata)))
	if !now.Equal(s.Policy) {
		s.Policy = now
	}
}
