package render

import (
	"bytes"
	"maps"
	"reflect"
	"slices"

	"lbctl/internal/access"
)

// memo is the last rendering, with its input. If nginx asks for servers, most changes
// affect only servers, so the templates would give the same files again. With a thousand
// services, executing them takes most of the time.
type memo struct {
	set       templateSet
	catalog   Catalog
	rendering rendering
	layout    *builder        // of the newest catalog
	crowded   map[string]bool // services in the newest catalog with too many servers for a DNS answer
	// networks has the denied networks for the next rendering. Others than before are another
	// value, which the templates are executed for.
	networks *access.Networks
}

// reads records which parts of a catalog the templates have used. Most templates use
// neither Servers nor Services, so their files don't depend on them.
type reads struct {
	servers, services bool
	networks          bool
	asked             map[string]bool // upstreams that nginx asks for
}

// fits reports whether the templates would give the same files again. It returns false if
// they query Consul themselves, or have used a part of the catalog that has changed.
func (m *memo) fits(set templateSet, c Catalog) bool {
	return m.set != nil && len(m.rendering.needs) == 0 && len(m.rendering.problems) == 0 &&
		!m.catalog.reads.servers && !m.catalog.reads.services && m.set.equal(set) &&
		m.catalog.networks == c.networks &&
		sameFrontend(m.catalog.GRPC, c.GRPC) && sameFrontend(m.catalog.HTTP, c.HTTP) &&
		reflect.DeepEqual(m.catalog.TLS, c.TLS) && m.catalog.Clients == c.Clients && maps.EqualFunc(m.catalog.files, c.files, bytes.Equal) &&
		slices.EqualFunc(m.catalog.TCP, c.TCP, func(a, b TCPService) bool {
			return slices.Equal(a.Listen, b.Listen) && a.TLS == b.TLS && reflect.DeepEqual(a.Clients, b.Clients) && sameUpstream(a.Upstream, b.Upstream)
		}) &&
		slices.EqualFunc(m.catalog.SharedTCP, c.SharedTCP, sameSharedPort)
}

func sameSharedPort(a, b SharedPort) bool {
	return a.Port == b.Port && slices.Equal(a.Listen, b.Listen) && slices.EqualFunc(a.Services, b.Services, func(a, b SharedService) bool {
		return slices.Equal(a.Hosts, b.Hosts) && sameUpstream(a.Upstream, b.Upstream)
	})
}

func sameFrontend(a, b Frontend) bool {
	return slices.EqualFunc(a.Upstreams, b.Upstreams, sameUpstream) && reflect.DeepEqual(a.Hosts, b.Hosts)
}

// sameUpstream compares the fields of upstreams that can affect the files.
func sameUpstream(a, b Upstream) bool {
	if !(a.Resolve && b.Resolve) && !slices.Equal(a.servers, b.servers) {
		return false
	}
	return a.Spec.Equal(b.Spec) && a.Name == b.Name && a.Service == b.Service && a.MaxConns == b.MaxConns &&
		a.Resolve == b.Resolve && a.IPv6 == b.IPv6 && a.ZoneKiB == b.ZoneKiB
}
