package endpoints

import "net/netip"

// metadataServices are the addresses, beside link-local ones, where clouds give a machine
// its credentials.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"),
}

// Forbidden returns why no instance may have an IP address; empty if one may.
func Forbidden(address netip.Addr) string {
	address = address.Unmap()
	switch {
	case address.IsUnspecified():
		return "it is no machine's"
	case address.IsMulticast(), address == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is a multicast or broadcast address"
	case address.IsLinkLocalUnicast():
		return "it is link-local, as metadata services are"
	}
	for _, service := range metadataServices {
		if address.WithZone("") == service {
			return "it is a cloud's metadata service"
		}
	}
	return ""
}
