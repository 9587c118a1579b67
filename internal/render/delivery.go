package render

import (
	"fmt"
	"net/netip"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/nginx"
	"lbctl/internal/resolver"
)

// CanResolve says why nginx of this version can't ask for the servers of its
// upstreams; nil when it can.
func CanResolve(nginxVersion string) error {
	can, err := nginx.AtLeast(nginxVersion, nginx.ResolveSince)
	if err == nil && !can {
		err = fmt.Errorf("nginx %s can't ask for the servers of its upstreams, want %s or later", nginxVersion, nginx.ResolveSince)
	}
	return err
}

// byReload says why the servers of a service are written into nginx's files, so
// that each change of them is a reload; "" when nginx is to ask for them. What DNS
// has no place for, but differs from instance to instance, is such a reason.
func byReload(e endpoints.Entry) string {
	if e.ByReload {
		return fmt.Sprintf("its %s says %q", metadata.KeyEndpoints, metadata.EndpointsReload)
	}
	for _, i := range e.Instances {
		if first := e.Instances[0]; i.MaxConns != first.MaxConns {
			return fmt.Sprintf("its instances have different %s: %q has %d, %q %d",
				metadata.KeyMaxConns, metadata.Shorten(first.ID), first.MaxConns, metadata.Shorten(i.ID), i.MaxConns)
		}
	}
	return ""
}

// delivered is what nginx gets to know of a configuration's servers otherwise than
// by its files.
type delivered struct {
	upstreams map[string][]resolver.Target // that nginx asks for, by name
	byReload  map[string]string            // services that are not among them, and why
}

// deliver sorts the services by how their servers reach nginx.
func (b *builder) deliver(asked map[string]bool) delivered {
	d := delivered{upstreams: make(map[string][]resolver.Target, len(b.upstreams)), byReload: b.byReload}
	for service, u := range b.upstreams {
		switch {
		case !u.Resolve:
		case asked[u.Host()]:
			d.upstreams[u.Name] = u.targets
		default:
			d.byReload[service] = "the templates write its servers into nginx's files"
		}
	}
	return d
}

func targets(servers []Server) []resolver.Target {
	all := make([]resolver.Target, 0, len(servers))
	for _, s := range servers {
		addr, err := netip.ParseAddrPort(s.Address)
		if err != nil {
			continue // its address and port were validated
		}
		all = append(all, resolver.Target{Addr: addr, Weight: uint16(s.Weight)})
	}
	return all
}

// Host is the name under which nginx asks for the upstream's servers.
func (u Upstream) Host() string { return resolver.Host(u.Name) }

// ResolveService is the service that nginx asks for, in the words of its directive
// server.
func (u Upstream) ResolveService() string { return resolver.Service }

// Seeds is what an upstream includes to have servers before it has been answered: a
// pattern, since there need not be such a file.
func (s Settings) Seeds(upstream string) string { return nginx.Seeds(s.SeedsDir, upstream) }

// An upstream's zone has room for twice as many servers as there ever were, within
// steps, so that scaling a service doesn't change nginx's configuration.
const (
	zoneServers   = 64 // of the smallest
	zoneKiB       = 64 // for what isn't a server
	serverKiB     = 2  // twice what it takes: seeds are servers too
	serverTLSKiB  = 4  // with a TLS session
	zoneFullShare = 0.75
)

func resolveZoneKiB(peak int, p endpoints.Protocol) int {
	room := zoneServers
	for float64(peak) > zoneFullShare*float64(room) {
		room *= 2
	}
	if p.TLS() {
		return zoneKiB + room*serverTLSKiB
	}
	return zoneKiB + room*serverKiB
}
