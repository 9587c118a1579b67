package render

import (
	"fmt"
	"slices"
	"strings"

	"lbctl/internal/access"
	"lbctl/internal/policy"
)

// AuthSocket is the name of the socket in the run directory where lbctl says whether a request
// may pass.
const AuthSocket = "auth.sock"

// Auth is how nginx asks whether the requests of a location may pass.
type Auth struct {
	// Location is the internal location that asks. Each virtual host needs it.
	Location string
	Kinds    string    // of keys that lbctl accepts, separated by spaces; empty: another service decides
	Service  string    // that decides; empty: lbctl does
	To       *Location // one of that service, which says how nginx asks it; nil if it has no instance, so that nobody may pass
	Path     string    // that it is asked with
}

// Auth returns how nginx asks about the requests of a location; nil if they need not prove
// anything.
func (c Catalog) Auth(l Location) *Auth {
	if l.Policy == nil || !l.Policy.Auth.Wanted() {
		return nil
	}
	wanted := l.Policy.Auth
	if wanted.External != "" {
		a := &Auth{Service: string(wanted.External), Path: string(wanted.ExternalPath)}
		if a.Path == "" {
			a.Path, _ = policy.Default(policy.HTTP, "auth.external-path") // the field has one
		}
		if a.To = c.HTTP.locationOf(a.Service); a.To != nil {
			a.Location = fmt.Sprintf("/../(auth:%s:%s)", a.To.Upstream, a.Path)
		}
		return a
	}
	a := &Auth{Location: "/../(auth)"}
	var kinds []string
	if wanted.Keys == policy.On {
		kinds = append(kinds, access.APIKey)
	}
	if wanted.Basic == policy.On {
		kinds = append(kinds, access.Basic)
	}
	a.Kinds = strings.Join(kinds, " ")
	return a
}

// locationOf returns a location of a service that has instances; nil if there is none.
func (f Frontend) locationOf(service string) *Location {
	for _, h := range f.Hosts {
		for _, all := range [][]Location{h.Locations, h.Named} {
			for n := range all {
				if all[n].Service == service && all[n].Upstream != "" {
					return &all[n]
				}
			}
		}
	}
	return nil
}

// Auths returns how nginx asks about the requests of a virtual host: one for each internal
// location.
func (c Catalog) Auths(h Host) []Auth {
	var all []Auth
	for _, l := range slices.Concat(h.Locations, h.Named) {
		a := c.Auth(l)
		if a != nil && a.Location != "" && !slices.ContainsFunc(all, func(b Auth) bool { return b.Location == a.Location }) {
			all = append(all, *a)
		}
	}
	return all
}

// externals reports the services of auth.external that can't be asked, so that nobody may pass.
func (b *builder) externals(r routed) {
	settings, field := r.spec.Policy, []string{"auth.external"}
	seen := map[policy.ServiceName]bool{}
	for _, path := range append([]policy.Path{""}, settings.Paths()...) {
		name := settings.At(path).Auth.External
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		n, found := b.routedIndex(string(name))
		switch {
		case !found:
			b.policyProblem(r.service, settings, path, field, "auth.external %q: there is no HTTP service of that name with a route, so nobody may pass", name)
		case b.routed[n].spec.Protocol.Family() != policy.HTTP:
			b.policyProblem(r.service, settings, path, field, "auth.external %q: its protocol is %s, want http or https, so nobody may pass", name, b.routed[n].spec.Protocol)
		}
	}
}

// HasAuth reports whether any request must prove who sends it.
func (c Catalog) HasAuth() bool {
	for _, f := range []Frontend{c.GRPC, c.HTTP} {
		for _, h := range f.Hosts {
			for _, l := range slices.Concat(h.Locations, h.Named) {
				if l.Policy != nil && l.Policy.Auth.Wanted() {
					return true
				}
			}
		}
	}
	return false
}
