package metadata

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/printable"
	"lbctl/internal/spelling"
)

// reservedPath is the path of the templates' error pages: no service can have it, or a path
// below it.
const reservedPath = "/.lb"

// Listener is a listener of the balancer, as lb-listen names it.
type Listener struct {
	Name   string
	Family string // of the protocols of its services, see endpoints.Protocol.Family
}

// Reserved has the ports, domain and addresses of the balancer itself, which no service
// can have, and the listeners, which services can choose.
type Reserved struct {
	// Listeners are those that lb-listen can name; nil: they are not known, so it can name any.
	Listeners []Listener
	// Ports has the ports that lb-port can't have.
	Ports []int
	// Domain is the domain that no lb-host can be in; empty: none.
	Domain string
	// Sockets has the addresses and ports of the balancer's listeners. An unspecified address
	// means every address of this machine.
	Sockets []netip.AddrPort
}

var listenerPattern = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

// checkListener returns which listeners a service can name, if it can't name this one.
func (r Reserved) checkListener(name string, p endpoints.Protocol) error {
	var all, fitting []string
	for _, l := range r.Listeners {
		all = append(all, l.Name)
		if l.Family == p.Family() {
			fitting = append(fitting, l.Name)
		}
	}
	switch {
	case r.Listeners == nil && listenerPattern.MatchString(name), p == "" && slices.Contains(all, name):
		return nil // an unknown protocol is a mistake of its own
	case slices.Contains(fitting, name):
		return nil
	case slices.Contains(all, name):
		return fmt.Errorf("listeners for %s, which are %s; %q is not one of them", p.Family(), strings.Join(fitting, ", "), name)
	}
	meant := ""
	if nearest := spelling.Nearest(name, all); nearest != "" {
		meant = fmt.Sprintf(", did you mean %q?", nearest)
	}
	return fmt.Errorf("listeners of the balancer, which are %s, separated by commas; there is no %q%s", strings.Join(all, ", "), printable.Shorten(name), meant)
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
