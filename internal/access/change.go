package access

import (
	"net/netip"
	"slices"
)

// Deny returns the rules after "lbctl deny": the networks are denied by the write. It replaces
// the rules of the same networks for the write's service.
func Deny(rules []Rule, networks []netip.Prefix, w Write) []Rule {
	w.Allow = false
	return set(rules, networks, &w)
}

// Allow returns the rules after "lbctl allow": all addresses in the networks are let in. It
// removes their rules and those of networks in them. A network in a larger one that stays
// denied gets a rule that lets it in, as long as the write and that denial say.
func Allow(rules []Rule, networks []netip.Prefix, w Write) []Rule {
	w.Allow = true
	given := setOf(networks)
	rules = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool {
		_, in := around(r.Network, given)
		return in && r.Service == w.Service
	})
	left := map[netip.Prefix]Rule{}
	for _, r := range rules {
		if r.Service == w.Service {
			left[r.Network] = r
		}
	}
	for n := range given {
		outer, denied := around(n, left)
		if !denied || outer.Allow {
			continue
		}
		own := w
		if !outer.Until.IsZero() && (own.Until.IsZero() || own.Until.After(outer.Until)) {
			own.Until = outer.Until
		}
		rules = append(rules, Rule{n, &own})
	}
	slices.SortFunc(rules, compareRules)
	return rules
}

// Only returns the rules after "lbctl allow --only": of the write's service, all addresses are
// denied but those in the networks. Denials of networks in them stay.
func Only(rules []Rule, networks []netip.Prefix, w Write) []Rule {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return r.Service == w.Service && r.Allow })
	rules = Deny(rules, All, w)
	w.Allow = true
	return set(rules, networks, &w)
}

// set gives the networks the write's rule. rules is not changed.
func set(rules []Rule, networks []netip.Prefix, w *Write) []Rule {
	given := setOf(networks)
	rules = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool {
		_, same := given[r.Network]
		return same && r.Service == w.Service
	})
	for n := range given {
		rules = append(rules, Rule{n, w})
	}
	slices.SortFunc(rules, compareRules)
	return rules
}

func setOf(networks []netip.Prefix) map[netip.Prefix]struct{} {
	s := make(map[netip.Prefix]struct{}, len(networks))
	for _, n := range networks {
		s[n] = struct{}{}
	}
	return s
}

// around returns the value of the smallest network that has all addresses of n.
func around[T any](n netip.Prefix, values map[netip.Prefix]T) (value T, found bool) {
	for bits := n.Bits(); bits >= 0; bits-- {
		if value, found = values[netip.PrefixFrom(n.Addr(), bits).Masked()]; found {
			return value, true
		}
	}
	return value, false
}

// within reports whether all addresses of a are in b.
func within(a, b netip.Prefix) bool { return a.Bits() >= b.Bits() && b.Contains(a.Addr()) }

// Decide returns whether the rules deny an address the use of a service, and the rule that
// decides; found is false if there is none.
func Decide(rules []Rule, address netip.Addr, service string) (r Rule, found, denied bool) {
	address = address.Unmap().WithZone("")
	everywhere, known := smallest(rules, address, "")
	if known && !everywhere.Allow {
		return everywhere, true, true
	}
	if own, ok := smallest(rules, address, service); ok {
		return own, true, !own.Allow
	}
	return everywhere, known, false
}

// smallest returns the rule for a service with the smallest network around an address.
func smallest(rules []Rule, address netip.Addr, service string) (found Rule, ok bool) {
	for _, r := range rules {
		if r.Service == service && r.Network.Contains(address) && (!ok || r.Network.Bits() > found.Network.Bits()) {
			found, ok = r, true
		}
	}
	return found, ok
}
