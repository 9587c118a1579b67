package metadata

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
)

// reservedPath is where the templates have their error pages: no service can have it,
// or anything below.
const reservedPath = "/.lb"

// Reserved has the ports, domain and addresses of the balancer itself, which no service
// can have.
type Reserved struct {
	// Ports are those that lb-port can't have.
	Ports []int
	// Domain is what no lb-host can be in; empty: none.
	Domain string
	// Sockets are where the balancer listens. An unspecified address is every one of
	// this machine.
	Sockets []netip.AddrPort
}

// Refuse says why an instance can't be at an address; empty when it can.
func (r Reserved) Refuse(at netip.AddrPort) string {
	if why := endpoints.Forbidden(at.Addr()); why != "" {
		return why
	}
	return endpoints.Objection(at.Addr(), func(address netip.Addr) string {
		for _, socket := range r.Sockets {
			if socket.Port() == at.Port() && covers(socket.Addr(), address) {
				return fmt.Sprintf("the balancer itself listens at %s", socket)
			}
		}
		return ""
	})
}

// covers reports whether a connection to an address reaches a listener.
func covers(listener, address netip.Addr) bool {
	listener, address = listener.Unmap(), address.Unmap()
	return listener == address || listener.IsUnspecified() && isLocal(address)
}

// isLocal reports whether an address is this machine's.
func isLocal(address netip.Addr) bool {
	if address.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == address
	})
}

// refuse says why an instance with an IP address can't be there. A host name is looked
// up later, and judged then.
func (r Reserved) refuse(i endpoints.Instance) string {
	address, err := netip.ParseAddr(i.Address)
	if err != nil {
		return ""
	}
	return r.Refuse(netip.AddrPortFrom(address, uint16(i.Port)))
}

// ReservedHost reports whether a host name is in the balancer's own domain.
func (r Reserved) ReservedHost(host string) bool {
	host = strings.TrimPrefix(host, "*.")
	return r.Domain != "" && (host == r.Domain || strings.HasSuffix(host, "."+r.Domain))
}

// ReservedPath reports whether no service can have a path. nginx compares paths after it has decoded
// and cleaned them; parsePath lets none pass that this would change.
func ReservedPath(path string) bool {
	return path == reservedPath || strings.HasPrefix(path, reservedPath+"/")
}
