package render

import (
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/certificates"
	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/printable"
	"lbctl/internal/routing"
)

// Socket is one address of a listener.
type Socket struct {
	Address       string // "0.0.0.0:5000", "[::]:5000"
	TLS           bool
	HTTP2         bool // clients may begin with HTTP/2
	ProxyProtocol bool
}

// HostClients says which certificates the clients of a host need.
type HostClients struct {
	// File has the certificates of the authorities, relative to nginx.conf. Empty: no client
	// can be let in, because the operator's file can't be used.
	File     string
	Optional bool // a client may have no certificate
}

// group has listeners of one family that lead to the same services.
type group struct {
	listeners []Listener
	services  []routed // those that name their listeners come first
}

// fits reports whether a listener with the services belongs to the group.
func (g group) fits(l Listener, services []routed) bool {
	first := g.listeners[0]
	return first.Redirect == 0 && l.Redirect == 0 && first.ProxyProtocol == l.ProxyProtocol &&
		slices.EqualFunc(g.services, services, func(a, b routed) bool { return a.service == b.service })
}

// openListeners returns the listeners that exist now: those with TLS need a certificate.
func (s Settings) openListeners() []Listener {
	if s.Certificates.Default != "" {
		return s.Listeners
	}
	return slices.DeleteFunc(slices.Clone(s.Listeners), func(l Listener) bool { return l.Protocol.TLS() })
}

// groups returns the groups of a family, in the order of their first listeners.
func (b *builder) groups(family string) []group {
	var all []group
	for _, l := range b.open {
		if l.Protocol.Family() != family {
			continue
		}
		services := b.takers(l)
		n := slices.IndexFunc(all, func(g group) bool { return g.fits(l, services) })
		if n < 0 {
			all = append(all, group{listeners: []Listener{l}, services: services})
			continue
		}
		all[n].listeners = append(all[n].listeners, l)
	}
	return all
}

// takers returns the services of a listener.
func (b *builder) takers(l Listener) (services []routed) {
	if l.Redirect != 0 {
		return nil
	}
	var all []routed
	for _, p := range b.routed {
		switch {
		case p.spec.Protocol.Family() != l.Protocol.Family():
		case slices.Contains(p.spec.Listeners, l.Name):
			services = append(services, p)
		case len(p.spec.Listeners) == 0:
			all = append(all, p)
		}
	}
	return append(services, all...)
}

// checkListeners reports the services that name listeners that don't exist. Package metadata
// has checked the names; this covers services from a snapshot.
func (b *builder) checkListeners() {
	for _, p := range b.routed {
		for _, name := range p.spec.Listeners {
			l, ok := b.settings.listener(name)
			if !ok || l.Protocol.Family() != p.spec.Protocol.Family() {
				b.conflict = true
				b.problem(p.service, "there is no listener %q for %s, so the service is not served there", printable.Shorten(name), p.spec.Protocol.Family())
			}
		}
	}
}

// makeHosts makes the virtual hosts of all listeners.
func (b *builder) makeHosts() {
	b.checkListeners()
	b.hosts, b.routesAt = map[string][]Host{}, map[string][]routing.Way{}
	for _, family := range []string{"grpc", "http"} {
		for _, g := range b.groups(family) {
			b.hosts[family] = append(b.hosts[family], b.hostsOf(family, g)...)
		}
	}
}

// hostsOf returns the virtual hosts of a group, the default host first.
func (b *builder) hostsOf(family string, g group) []Host {
	first := g.listeners[0]
	base := Host{
		Redirect:       first.Redirect,
		TrustedProxies: b.settings.TrustedProxies,
		ProxyProtocol:  first.ProxyProtocol,
	}
	for _, l := range g.listeners {
		base.HSTS = base.HSTS || l.HSTS != 0
		for _, address := range l.Listen {
			base.Listen = append(base.Listen, Socket{
				Address: address, TLS: l.Protocol.TLS(), HTTP2: family == "grpc" || l.Protocol.TLS(), ProxyProtocol: l.ProxyProtocol,
			})
		}
	}
	if base.Redirect != 0 {
		base.Name, base.Default = "_", true
		return []Host{base}
	}
	w := b.routes(family, g)
	for _, clients := range b.settings.Certificates.Clients {
		if w[clients.Host] == nil { // it needs a virtual host of its own
			w[clients.Host] = &hostWays{}
		}
	}
	hosts := w.hosts()
	for _, l := range g.listeners {
		b.routesAt[l.Name] = w.inOrder()
	}
	for n, found := range hosts {
		h := base
		h.Name, h.Default, h.Locations, h.Named = found.Name, found.Default, found.Locations, found.Named
		h.Clients = b.clientsOf(h)
		hosts[n] = h
	}
	return hosts
}

func (b *builder) clientsOf(h Host) *HostClients {
	name := h.Name
	if h.Default {
		name = ""
	}
	c := b.settings.Certificates.ClientsOf(name)
	if c == nil {
		return nil
	}
	if len(c.Authorities) == 0 {
		return &HostClients{}
	}
	return &HostClients{File: clientsFile(*c), Optional: c.Optional}
}

// clientsFile is the file of a generation with the authorities for clients.
func clientsFile(c certificates.Clients) string {
	if c.Host == "" {
		return "client-ca/" + certificates.DefaultName + ".pem"
	}
	return "client-ca/" + c.Host + ".pem"
}

// clientsFiles returns the files of a generation with the authorities for clients.
func (s Settings) clientsFiles() map[string][]byte {
	files := map[string][]byte{}
	for _, c := range s.Certificates.Clients {
		if len(c.Authorities) > 0 {
			files[clientsFile(c)] = c.Authorities
		}
	}
	return files
}

// routes gives the routes of a group to its services.
func (b *builder) routes(family string, g group) ways {
	w := ways{"": {health: b.settings.Health.way(family)}}
	owners := map[endpoints.Route]routed{}
	for _, p := range g.services {
		routes := p.spec.Routes
		if p.spec.Default {
			routes = append(slices.Clone(routes), endpoints.Route{})
		}
		for _, route := range routes {
			if !route.Exact {
				route.Path = strings.TrimSuffix(route.Path, "/")
			}
			if metadata.ReservedPath(route.Path) || b.reserved.ReservedHost(route.Host) {
				b.conflict = true
				b.problem(p.service, "%s route %q is reserved for the balancer, so the service does not get it", family, route)
				continue
			}
			if owner, taken := owners[route]; taken {
				b.lost(family, g, p, owner, route)
				continue
			}
			owners[route] = p
			w.add(family, route, p)
		}
	}
	return w
}

// lost reports that a service does not get a route, because another one has it. The
// endpoints.Table has resolved the conflicts of services with the same listeners. A service that
// names its listeners has its routes there before those that take all listeners: that is no
// conflict.
func (b *builder) lost(family string, g group, p, owner routed, route endpoints.Route) {
	offered := p.spec.Yields && route == (endpoints.Route{}) // it has only offered to be the default
	if owner.service == p.service || offered || len(p.spec.Listeners) == 0 && len(owner.spec.Listeners) > 0 {
		return
	}
	where := ""
	if len(p.spec.Listeners) > 0 {
		var names []string
		for _, l := range g.listeners {
			names = append(names, l.Name)
		}
		where = fmt.Sprintf(" on listener %s", strings.Join(names, ", "))
	}
	b.conflict = true
	b.problem(p.service, "%s route %q%s belongs to service %q", family, route, where, owner.service)
}
