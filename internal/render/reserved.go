package render

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/resolver"
)

// reserved returns the addresses and ports of the balancer itself, except for the ports of
// TCP services.
func (s Settings) reserved() metadata.Reserved {
	r := metadata.Reserved{Domain: resolver.Domain, Listeners: known(s.Listeners)}
	addresses := slices.Concat([]string{s.Resolver}, s.OwnAddresses)
	for _, l := range s.Listeners {
		addresses = append(addresses, l.Listen...)
	}
	for _, listen := range addresses {
		if socket, ok := parseSocket(listen); ok {
			if port := int(socket.Port()); !slices.Contains(r.Ports, port) {
				r.Ports = append(r.Ports, port)
			}
			r.Sockets = append(r.Sockets, socket)
		}
	}
	slices.Sort(r.Ports)
	return r
}

// withTCP returns reserved together with the sockets where nginx listens for TCP services.
func (s Settings) withTCP(r metadata.Reserved, entries []endpoints.Entry) metadata.Reserved {
	for _, e := range entries {
		if e.Port == 0 || !s.HasStream() {
			continue
		}
		for _, listen := range s.TCPListen(e.Port) {
			if socket, ok := parseSocket(listen); ok {
				r.Sockets = append(r.Sockets, socket)
			}
		}
	}
	return r
}

// parseSocket returns a listener's address and port. A host name, or none, counts as all
// addresses of this machine. It returns false if there is no listener.
func parseSocket(listen string) (netip.AddrPort, bool) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, false
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		address = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(address, uint16(n)), true
}
