package endpoints

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// claim is something that only one service can have: a route, the default of a listener,
// or a TCP port.
type claim string

// claims knows which service has which claim. A service keeps the claims that it has; a
// free one goes to the first service by name.
type claims struct {
	owners map[claim]string // by claim, the service's name
	// claimants has the services whose claims were settled last; contested is true if one
	// of them lost a claim.
	claimants []claimant
	contested bool
}

// claimant is a service with what it claims.
type claimant struct {
	service string
	spec    Spec
}

// settle removes from each entry the routes and ports that another service has, and adds a
// problem to the entry. Entries must be sorted by name.
func (c *claims) settle(entries []Entry) {
	if !c.areSettled(entries) {
		c.assign(entries)
		c.claimants, c.contested = make([]claimant, len(entries)), false
		for n := range entries {
			e := &entries[n]
			c.claimants[n] = claimant{e.Name, e.Spec}
			c.contested = e.yield(c.owners) || c.contested
		}
	}
	for n := range entries {
		if e := &entries[n]; e.Default && e.Yields && c.owners[defaultClaim(e.Spec)] != e.Name {
			e.Default = false // no problem: it has only offered to be the default
		}
	}
}

// assign finds the owner of each claim.
func (c *claims) assign(entries []Entry) {
	owners, offers := map[claim]string{}, map[claim]string{}
	contest := func(owners map[claim]string, place claim, service string) {
		if owner, taken := owners[place]; !taken || c.owners[place] == service && owner != service {
			owners[place] = service
		}
	}
	for _, e := range entries {
		for _, place := range claimsOf(e) {
			contest(owners, place, e.Name)
		}
		if e.Port != 0 {
			contest(owners, portClaim(e.Port), portOwner(e))
		}
		if e.Default && e.Yields {
			contest(offers, defaultClaim(e.Spec), e.Name)
		}
	}
	for place, service := range offers {
		if _, taken := owners[place]; !taken {
			owners[place] = service
		}
	}
	c.owners = owners
}

// areSettled reports whether all services have the same claims as the last time, and none
// of them lost one then. That saves the time to settle them again, which is long with a
// thousand services.
func (c *claims) areSettled(entries []Entry) bool {
	return !c.contested && len(c.claimants) > 0 && slices.EqualFunc(c.claimants, entries, func(c claimant, e Entry) bool {
		return c.service == e.Name && c.spec.SameRouting(e.Spec)
	})
}

// claimsOf returns what a service claims for itself alone.
func claimsOf(e Entry) []claim {
	var all []claim
	for _, r := range e.Routes {
		all = append(all, routeClaim(e.Spec, r))
	}
	if e.Default && !e.Yields {
		all = append(all, defaultClaim(e.Spec))
	}
	return all
}

// sharedPort is the owner of a TCP port that services share by host.
const sharedPort = "*" // no service has this name

// portOwner returns who owns the port of a TCP service, if the service gets it.
func portOwner(e Entry) string {
	if len(e.Routes) > 0 {
		return sharedPort
	}
	return e.Name
}

// routeClaim is the claim of a route on the service's listeners. Services that name different
// listeners don't compete here: package render decides, for each listener.
func routeClaim(s Spec, r Route) claim {
	if s.Protocol == TCP {
		return claim("port " + strconv.Itoa(s.Port) + " " + r.Host)
	}
	if r.Path == "/" && !r.Exact {
		r.Path = "" // the prefix of every path
	}
	return claim(s.Protocol.Family() + " " + strings.Join(s.Listeners, ",") + " " + r.String())
}

// defaultClaim is the claim to all requests of the service's listeners that no route matches.
func defaultClaim(s Spec) claim { return routeClaim(s, Route{}) }

func portClaim(port int) claim { return claim("port " + strconv.Itoa(port)) }

// yield removes the routes and ports from the entry that another service has, and reports
// whether there were any.
func (e *Entry) yield(owners map[claim]string) (yielded bool) {
	e.Problems = slices.Clip(e.Problems)
	lost := func(c claim) bool {
		yielded = yielded || owners[c] != e.Name
		return owners[c] != e.Name
	}
	problem := func(format string, args ...any) { e.Problems = append(e.Problems, fmt.Sprintf(format, args...)) }
	family := e.Protocol.Family()
	if owner := owners[portClaim(e.Port)]; e.Port != 0 && owner != portOwner(*e) {
		yielded = true
		if owner == sharedPort {
			problem("TCP port %d is shared by services with lb-host, so %q, which has none, does not get it", e.Port, e.Name)
		} else {
			problem("TCP port %d belongs to service %q, so %q does not get it", e.Port, owner, e.Name)
		}
		e.Port, e.Routes = 0, nil
	}
	if slices.ContainsFunc(e.Routes, func(r Route) bool { return lost(routeClaim(e.Spec, r)) }) {
		e.Routes = slices.DeleteFunc(slices.Clone(e.Routes), func(r Route) bool {
			c := routeClaim(e.Spec, r)
			if lost(c) {
				problem("%s route %q belongs to service %q, so %q does not get it", family, r, owners[c], e.Name)
			}
			return lost(c)
		})
		if len(e.Routes) == 0 {
			e.Port = 0 // without a host it would want the whole port
		}
	}
	if c := defaultClaim(e.Spec); e.Default && !e.Yields && lost(c) {
		e.Default = false
		problem("service %q already gets all %s requests that match no route, so %q does not: want lb-host or lb-path",
			owners[c], family, e.Name)
	}
	return yielded
}
