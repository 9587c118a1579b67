package render

import (
	"slices"
	"strings"

	"lbctl/internal/policy"
)

// mirrorPath is the location of the copies of requests: no request can have it.
const mirrorPath = "/../(mirror)"

// MirrorPath returns the location of the copies of requests.
func (l Location) MirrorPath() string { return mirrorPath }

// MirrorTo returns where the copies of requests go, as the value of proxy_pass or grpc_pass
// without a path; "" if there are none.
func (l Location) MirrorTo() string { return l.mirrors[l.Policy.Mirror.Service] }

// MirrorShare returns the end of the name of nginx's variable that says which requests are
// copied: "0_5" for 0.5 percent; "" for all.
func (l Location) MirrorShare() string { return shareName(l.Policy.Mirror.Percent) }

func shareName(p policy.Percent) string {
	if p == 0 || p == 100 {
		return ""
	}
	return strings.ReplaceAll(p.String(), ".", "_")
}

// Share is a share of requests.
type Share struct {
	Name    string // as in Location.MirrorShare
	Percent policy.Percent
}

// Mirrors reports whether a location of the listener copies requests.
func (f Frontend) Mirrors() bool {
	found := false
	f.each(func(l Location) { found = found || l.MirrorTo() != "" })
	return found
}

// MirrorShares returns the shares of requests that are copied, in order: one for all locations
// with the same.
func (c Catalog) MirrorShares() []Share {
	var all []Share
	for _, f := range []Frontend{c.GRPC, c.HTTP} {
		f.each(func(l Location) {
			s := Share{l.MirrorShare(), l.Policy.Mirror.Percent}
			if l.MirrorTo() != "" && s.Name != "" && !slices.Contains(all, s) {
				all = append(all, s)
			}
		})
	}
	slices.SortFunc(all, func(a, b Share) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// mirrors returns where the copies of a service's requests go, by the service that gets them, and
// reports those that no service can get.
func (b *builder) mirrors(r routed) map[string]string {
	var all map[string]string
	settings := r.spec.Policy
	field := []string{"mirror.service"}
	seen := map[string]bool{}
	for _, path := range append([]policy.Path{""}, settings.Paths()...) {
		name := settings.At(path).Mirror.Service
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		n, found := b.routedIndex(name)
		switch {
		case name == r.service:
			b.policyProblem(r.service, settings, path, field, "mirror.service %q: it is the service itself, want another one", name)
		case !found:
			b.policyProblem(r.service, settings, path, field, "mirror.service %q: there is no HTTP or gRPC service of that name with a route", name)
		case b.routed[n].spec.Protocol.Family() != r.spec.Protocol.Family():
			b.policyProblem(r.service, settings, path, field, "mirror.service %q: its protocol is %s, want one like %s", name, b.routed[n].spec.Protocol, r.spec.Protocol)
		case b.routed[n].upstream != "":
			if all == nil {
				all = map[string]string{}
			}
			all[name] = string(b.routed[n].spec.Protocol) + "://" + b.routed[n].upstream
		}
	}
	return all
}
