package access

import (
	"net/netip"
	"slices"
)

// ServicesAbout returns the services that have rules of their own about an address, sorted.
func ServicesAbout(rules []Rule, address netip.Addr) (services []string) {
	address = address.Unmap().WithZone("")
	for _, r := range rules {
		if r.Service != "" && r.Network.Contains(address) {
			services = append(services, r.Service)
		}
	}
	slices.Sort(services)
	return slices.Compact(services)
}

// OfServices returns the rules of single services that deny addresses of the networks, in the
// order of rules.
func OfServices(rules []Rule, networks []netip.Prefix) (denials []Rule) {
	given := setOf(networks)
	byService := map[string]map[netip.Prefix]Rule{}
	for _, r := range rules {
		if r.Service == "" {
			continue
		}
		if byService[r.Service] == nil {
			byService[r.Service] = map[netip.Prefix]Rule{}
		}
		byService[r.Service][r.Network] = r
	}
	type place struct {
		network netip.Prefix
		service string
	}
	outer := map[place]bool{} // the smallest around one of the networks
	for service, own := range byService {
		for n := range given {
			if r, found := around(n, own); found {
				outer[place{r.Network, service}] = true
			}
		}
	}
	for _, r := range rules {
		_, in := around(r.Network, given)
		if r.Service != "" && !r.Allow && (in || outer[place{r.Network, r.Service}]) {
			denials = append(denials, r)
		}
	}
	return denials
}
