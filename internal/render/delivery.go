package render

import (
	"fmt"
	"net/netip"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
	"lbctl/internal/printable"
	"lbctl/internal/resolver"
)

// CanResolve returns an error if this version of nginx can't ask for the servers of its
// upstreams.
func CanResolve(nginxVersion string) error {
	can, err := nginx.AtLeast(nginxVersion, nginx.ResolveSince)
	if err == nil && !can {
		err = fmt.Errorf("nginx %s can't ask for the servers of its upstreams, want %s or later", nginxVersion, nginx.ResolveSince)
	}
	return err
}

// byReloadReason returns why the servers of a service are written into nginx's files, so
// that each change of them is a reload; "" if nginx asks for them. DNS can't carry settings
// that differ between instances, nor more servers than fit into one answer.
func (b *builder) byReloadReason(e endpoints.Entry, u Upstream) string {
	if e.Policy.General().Endpoints == policy.DeliveryReload {
		return e.Policy.Says("endpoints")
	}
	for _, i := range e.Instances {
		first := e.Instances[0]
		if a, b := e.Policy.MaxConnsOf(first.MaxConns), e.Policy.MaxConnsOf(i.MaxConns); a != b {
			return fmt.Sprintf("its instances have different %s: %q has %d, %q %d", metadata.KeyMaxConns, printable.Shorten(first.ID), a, printable.Shorten(i.ID), b)
		}
	}
	limit := resolver.MaxSize
	if b.crowdedBefore[e.Name] {
		limit = crowdedUntil
	}
	if u.answerSize > limit {
		b.crowded[e.Name] = true
		return fmt.Sprintf("its %d servers take %d bytes in a DNS answer, more than %d", len(u.targets), u.answerSize, limit)
	}
	return ""
}

// crowdedUntil is the size of the DNS answer below which nginx asks again for a service
// that had too many servers. It is less than the limit, so that a service that scales
// around the limit doesn't change its delivery with each instance.
const crowdedUntil = resolver.MaxSize * 8 / 10

// delivered has the servers of a configuration, by their delivery.
type delivered struct {
	upstreams map[string][]resolver.Target // the upstreams that nginx asks for, by name
	written   map[string][]resolver.Target // all other upstreams, by name
	byReload  map[string]string            // services whose servers are in nginx's files, and why
	crowded   map[string]bool              // services that have too many servers for a DNS answer
}

// deliver sorts the services by their delivery. asked has the upstreams that nginx asks for
// according to the templates.
func (b *builder) deliver(asked map[string]bool) delivered {
	d := delivered{
		upstreams: make(map[string][]resolver.Target, len(b.upstreams)),
		written:   map[string][]resolver.Target{},
		byReload:  b.byReload,
		crowded:   b.crowded,
	}
	for service, u := range b.upstreams {
		if asked[u.Name] {
			d.upstreams[u.Name] = u.targets
			continue
		}
		d.written[u.Name] = u.targets
		if u.Resolve {
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

// Host returns the host name by which nginx asks for the upstream's servers. If a template
// calls it, the upstream counts as one that nginx asks for.
func (u Upstream) Host() string {
	u.reads.asked[u.Name] = true
	return resolver.Host(u.Name)
}

// ResolveService returns the parameter service of nginx's directive server.
func (u Upstream) ResolveService() string { return resolver.Service }

// BootstrapServers returns the argument of the include directive for an upstream's
// bootstrap servers. It is a pattern, because nginx accepts a pattern without a file.
func (s Settings) BootstrapServers(upstream string) string {
	return nginx.BootstrapPattern(s.BootstrapDir, upstream)
}

// Seeds is the name that BootstrapServers had in earlier releases; operators' own
// templates may use it.
func (s Settings) Seeds(upstream string) string { return s.BootstrapServers(upstream) }

// An upstream's zone has room for twice as many servers as it ever had, and grows in
// steps, so that scaling a service doesn't change nginx's configuration.
const (
	zoneServers   = 64 // of the smallest zone
	zoneKiB       = 64 // for everything but servers
	serverKiB     = 2  // twice the size of a server: bootstrap servers need room too
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
