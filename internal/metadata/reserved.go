package metadata

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
)

// reservedPath is the path of the templates' error pages: no service can have it, or a path
// below it.
const reservedPath = "/.lb"

// Reserved has the ports, domain and addresses of the balancer itself, which no service
// can have.
type Reserved struct {
	// Ports has the ports that lb-port can't have.
	Ports []int
	// Domain is the domain that no lb-host can be in; empty: none.
	Domain string
	// Sockets has the addresses and ports of the balancer's listeners. An unspecified address
	// means every address of this machine.
	Sockets []netip.AddrPort
}

// Refuse returns why an instance can't have an address; empty if it can.
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

// isLocal reports whether this machine has the address.
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

// refuse returns why an instance can't have an IP address. A host name is checked later, when it
// is resolved.
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

// ReservedPath reports whether a path is reserved for the balancer. nginx compares paths after it
// has decoded and cleaned them; parsePath refuses paths that this would change.
func ReservedPath(path string) bool {
	return path == reservedPath || strings.HasPrefix(path, reservedPath+"/")
}
