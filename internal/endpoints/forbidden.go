package endpoints

import (
	"fmt"
	"net/netip"
	"slices"
)

// metadataServices are the addresses, beside link-local ones, where clouds tell a
// machine its credentials.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"),
}

// Forbidden says why no instance may have an IP address; empty when one may.
func Forbidden(address netip.Addr) string {
	return Objection(address, forbidden)
}

// Objection asks object about an IP address, and about each IPv4 address that packets to it
// may reach, because it carries that in one of its transitional forms. It returns the first
// reason, or "" if there is none.
func Objection(address netip.Addr, object func(netip.Addr) string) string {
	address = address.Unmap()
	if why := object(address); why != "" {
		return why
	}
	for _, carried := range carriedIPv4(address) {
		if why := object(carried); why != "" {
			return fmt.Sprintf("it stands for %s, and %s", carried, why)
		}
	}
	return ""
}

func forbidden(address netip.Addr) string {
	switch {
	case address.IsUnspecified():
		return "it is not the address of a machine"
	case address.IsMulticast(), address == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is a multicast or broadcast address"
	case address.IsLinkLocalUnicast():
		return "it is link-local, as metadata services are"
	}
	if slices.Contains(metadataServices, address.WithZone("")) {
		return "it is a cloud's metadata service"
	}
	return ""
}

// The prefixes of IPv6 addresses that carry an IPv4 address. An IPv4-mapped one is not
// among them: netip.Addr.Unmap knows it.
var (
	ipv4Compatible = netip.MustParsePrefix("::/96")          // RFC 4291, section 2.5.5.1
	nat64          = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052, section 2.1
	nat64Local     = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour      = netip.MustParsePrefix("2002::/16")      // RFC 3056, section 2
)

// carriedIPv4 returns the IPv4 addresses that an IPv6 address may carry. There are several
// for a local NAT64: only its operator knows the length of its prefix, and with it the
// place of the IPv4 address (RFC 6052, section 2.2).
func carriedIPv4(address netip.Addr) []netip.Addr {
	if !address.Is6() {
		return nil
	}
	a := address.As16()
	at := func(places ...int) netip.Addr {
		return netip.AddrFrom4([4]byte{a[places[0]], a[places[1]], a[places[2]], a[places[3]]})
	}
	address = address.WithZone("")
	switch {
	case address.IsUnspecified(), address.IsLoopback():
		return nil
	case ipv4Compatible.Contains(address), nat64.Contains(address):
		return []netip.Addr{at(12, 13, 14, 15)}
	case sixToFour.Contains(address):
		return []netip.Addr{at(2, 3, 4, 5)}
	case nat64Local.Contains(address):
		all := []netip.Addr{at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12), at(12, 13, 14, 15)}
		return slices.DeleteFunc(all, netip.Addr.IsUnspecified) // a place with no address in it
	default:
		return nil
	}
}
