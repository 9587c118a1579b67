package endpoints

import (
	"fmt"
	"slices"
	"strconv"
)

// claim is a place on the balancer that one service only can have.
type claim string

// claimant is a service with what it claims.
type claimant struct {
	service string
	spec    Spec
}

// settleClaims lets each route, default place and TCP port go to one service:
// to the one that has it already, else to the first by name. The others lose
// it, with a problem that says to whom. Entries must be sorted by name.
func (t *Table) settleClaims(entries []Entry) {
	if t.claimsStand(entries) {
		return
	}
	owners := map[claim]string{}
	for _, e := range entries {
		for _, c := range claims(e) {
			if owner, taken := owners[c]; !taken || t.owners[c] == e.Name && owner != e.Name {
				owners[c] = e.Name
			}
		}
	}
	t.owners = owners
	t.claimants, t.contested = make([]claimant, len(entries)), false
	for n := range entries {
		e := &entries[n]
		t.claimants[n] = claimant{e.Name, e.Spec}
		t.contested = e.yield(owners) || t.contested
	}
}

// claimsStand reports whether everybody claims what they did the last time, when
// nobody had to yield: as mostly, and with a thousand services it takes a while to
// find that out again.
func (t *Table) claimsStand(entries []Entry) bool {
	return !t.contested && len(t.claimants) > 0 && slices.EqualFunc(t.claimants, entries, func(c claimant, e Entry) bool {
		return c.service == e.Name && c.spec.SameRouting(e.Spec)
	})
}

func claims(e Entry) []claim {
	var cs []claim
	for _, r := range e.Routes {
		cs = append(cs, routeClaim(e.Protocol, r))
	}
	if e.Default {
		cs = append(cs, routeClaim(e.Protocol, Route{}))
	}
	if e.Port != 0 {
		cs = append(cs, portClaim(e.Port))
	}
	return cs
}

func routeClaim(p Protocol, r Route) claim {
	if r.Path == "/" {
		r.Path = "" // the prefix of every path
	}
	return claim(p.Family() + " " + r.String())
}

func portClaim(port int) claim { return claim("port " + strconv.Itoa(port)) }

// yield takes from the entry what another service owns, and reports whether that
// is anything.
func (e *Entry) yield(owners map[claim]string) (yielded bool) {
	e.Problems = slices.Clip(e.Problems)
	lost := func(c claim, what string) bool {
		owner := owners[c]
		if owner == e.Name {
			return false
		}
		yielded = true
		e.Problems = append(e.Problems, fmt.Sprintf("%s is already served by service %q, and not given to %q", what, owner, e.Name))
		return true
	}
	if slices.ContainsFunc(e.Routes, func(r Route) bool { return owners[routeClaim(e.Protocol, r)] != e.Name }) {
		e.Routes = slices.DeleteFunc(slices.Clone(e.Routes), func(r Route) bool {
			return lost(routeClaim(e.Protocol, r), fmt.Sprintf("%s route %q", e.Protocol.Family(), r))
		})
	}
	if e.Default && lost(routeClaim(e.Protocol, Route{}), "the default place of "+e.Protocol.Family()) {
		e.Default = false
	}
	if e.Port != 0 && lost(portClaim(e.Port), fmt.Sprintf("TCP port %d", e.Port)) {
		e.Port = 0
	}
	return yielded
}
