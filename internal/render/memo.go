package render

import (
	"maps"
	"reflect"
	"slices"
)

// memo is the last rendering, and what it was made of. Where nginx asks for
// servers, most changes are of those alone, and the templates, which take longest
// with a thousand services, would give the same files again.
type memo struct {
	set       templateSet
	catalog   Catalog
	rendering rendering
	layout    *builder        // of the newest catalog
	crowded   map[string]bool // services that had too many servers to ask for, in the newest catalog
}

// reads is what the templates have used of a catalog. Most templates use neither all
// servers nor all services, and then their files don't depend on them.
type reads struct {
	servers, services bool
	asked             map[string]bool // the upstreams that they have nginx ask for
}

// fits reports whether the templates would give the same files again. They would not if
// they ask Consul themselves, or have used something that has changed.
func (m *memo) fits(set templateSet, c Catalog) bool {
	return m.set != nil && len(m.rendering.needs) == 0 && len(m.rendering.problems) == 0 &&
		!m.catalog.reads.servers && !m.catalog.reads.services && maps.Equal(m.set, set) &&
		sameFrontend(m.catalog.GRPC, c.GRPC) && sameFrontend(m.catalog.HTTP, c.HTTP) &&
		slices.EqualFunc(m.catalog.TCP, c.TCP, func(a, b TCPService) bool {
			return slices.Equal(a.Listen, b.Listen) && sameUpstream(a.Upstream, b.Upstream)
		})
}

func sameFrontend(a, b Frontend) bool {
	return slices.EqualFunc(a.Upstreams, b.Upstreams, sameUpstream) && reflect.DeepEqual(a.Hosts, b.Hosts)
}

// sameUpstream compares what the files depend on.
func sameUpstream(a, b Upstream) bool {
	if !(a.Resolve && b.Resolve) && !slices.Equal(a.servers, b.servers) {
		return false
	}
	return a.Spec.Equal(b.Spec) && a.Name == b.Name && a.Service == b.Service && a.MaxConns == b.MaxConns &&
		a.Resolve == b.Resolve && a.IPv6 == b.IPv6 && a.ZoneKiB == b.ZoneKiB
}
