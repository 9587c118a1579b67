package render

import (
	"slices"

	"lbctl/internal/endpoints"
	"lbctl/internal/routing"
)

// listenersWith returns nginx's listeners with their routes, in the order in which requests take
// them. TCP services come last, each with a listener of its own.
func (b *builder) listenersWith(tcp []TCPService) []routing.Listener {
	all := []routing.Listener{}
	clients := map[string]routing.Clients{}
	for _, c := range b.settings.Certificates.Clients {
		clients[c.Host] = routing.Clients{Optional: c.Optional, File: c.FileName(), Broken: len(c.Authorities) == 0}
	}
	for _, l := range b.open {
		ways := append([]routing.Way{}, b.routesAt[l.Name]...)
		for n := range ways { // what is left out can change although the routes do not
			ways[n].LeftOut = b.policies[ways[n].Service].messages()
		}
		all = append(all, routing.Listener{Name: l.Name, Protocol: l.Protocol, Addresses: l.Listen, Redirect: l.Redirect, Clients: clients, Ways: ways})
	}
	for _, t := range tcp {
		all = append(all, routing.Listener{
			Name: "tcp", Protocol: endpoints.TCP, Addresses: t.Listen,
			Ways: []routing.Way{{Service: t.Upstream.Service, Upstream: t.Upstream.Name}},
		})
	}
	return all
}

// inOrder returns all routes in the order of routing.Compare.
func (w ways) inOrder() []routing.Way {
	var all []routing.Way
	for _, host := range w {
		for _, way := range host.all {
			all = append(all, routing.Way{Route: way.route, Service: way.to.service, Upstream: way.to.upstream, Policy: way.to.spec.Policy})
		}
	}
	slices.SortFunc(all, func(x, y routing.Way) int { return routing.Compare(x.Route, y.Route) })
	return w[""].health.insert(all)
}
