package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Problem says that a value of a service's policy has no effect, or can't be applied.
type Problem struct {
	// Sources are the Sources of the layers that say the values it is about. The first is that of
	// the value without an effect.
	Sources []string
	Message string // "lb/service/cart: sticky.ttl 1h: it has no effect without sticky.cookie"
}

// rule says beside which other value, or without which others, the value of a field has no effect.
// A switch that is off counts as not set.
type rule struct {
	field   string
	beside  string   // a field
	without []string // fields of which one must be set
	hint    string
	only    func(p *Policy) bool // nil: in all policies
	// always tells it of the operator's default too. Without it, such a value waits there for a
	// service that sets the others.
	always bool
}

var rules = []rule{
	{field: "outlier.min-requests", without: []string{"outlier.error-rate"}},
	{field: "outlier.interval", without: breaker},
	{field: "outlier.base-ejection-time", without: breaker},
	{field: "outlier.max-ejection-time", without: breaker},
	{field: "outlier.max-ejection-percent", without: breaker},
	{field: "limit.address.burst", without: []string{"limit.address.rate"}},
	{field: "limit.service.burst", without: []string{"limit.service.rate"}},
	{field: "limit.header.burst", without: []string{"limit.header.rate"}},
	{field: "sticky.ttl", without: []string{"sticky.cookie"}},
	{field: "sticky.path", without: []string{"sticky.cookie"}},
	{field: "sticky.secure", without: []string{"sticky.cookie"}},
	{field: "compression.types", without: []string{"compression.gzip"}},
	{field: "compression.min-length", without: []string{"compression.gzip"}},
	{field: "cors.allow-methods", without: []string{"cors.allow-origins"}},
	{field: "cors.allow-headers", without: []string{"cors.allow-origins"}},
	{field: "cors.expose-headers", without: []string{"cors.allow-origins"}},
	{field: "cors.max-age", without: []string{"cors.allow-origins"}},
	{field: "cors.allow-credentials", without: []string{"cors.allow-origins"}},
	{field: "cors.allow-credentials", beside: "cors.allow-origins", hint: "want the origins by name", always: true,
		only: func(p *Policy) bool { return p.CORS.AnyOriginAllowed() }},
	{field: "redirect.code", without: []string{"redirect.scheme", "redirect.host", "redirect.path", "redirect.replace-prefix"}},
	{field: "redirect.replace-prefix", beside: "redirect.path", hint: "want one of them", always: true},
	{field: "auth.keys", beside: "auth.external"},
	{field: "auth.basic", beside: "auth.external"},
	{field: "auth.external-path", without: []string{"auth.external"}},
	{field: "mirror.percent", without: []string{"mirror.service"}},
	{field: "tls.verify", without: []string{"tls.server-name"}, hint: "because Consul has addresses, and certificates are for names", always: true},
	{field: "tls.verify", without: []string{"tls.ca"}, hint: "the file of the authorities", always: true},
	{field: "tls.certificate", without: []string{"tls.certificate-key"}, always: true},
	{field: "tls.certificate-key", without: []string{"tls.certificate"}, always: true},
}

var breaker = []string{"outlier.consecutive-errors", "outlier.error-rate"}

// broken returns the values that have no effect by the rules, each once.
func (s Settings) broken() (problems []Problem) {
	if s.said == nil {
		return nil
	}
	policies := []*Policy{s.said.general}
	values := []map[string]origin{s.said.values("")}
	for _, path := range s.said.paths {
		policies = append(policies, s.said.at[path])
		values = append(values, s.said.values(path))
	}
	for _, r := range rules {
		// A value without the others may have them for some paths.
		useful := map[origin]bool{}
		for n, p := range policies {
			if value := values[n][r.field]; len(r.without) > 0 && !r.breaks(p, values[n]) {
				useful[value] = true
			}
		}
		for n, p := range policies {
			value := values[n][r.field]
			if !value.set() || useful[value] || value.level == LevelDefault && !r.always || !r.breaks(p, values[n]) {
				continue
			}
			problem := r.problem(value, values[n][r.beside])
			if !slices.ContainsFunc(problems, func(o Problem) bool { return o.Message == problem.Message }) {
				problems = append(problems, problem)
			}
		}
	}
	return problems
}

// breaks reports whether the value of the rule's field has no effect in a policy with the values.
func (r rule) breaks(p *Policy, values map[string]origin) bool {
	if r.only != nil && !r.only(p) {
		return false
	}
	if r.beside != "" {
		return values[r.beside].set()
	}
	return !slices.ContainsFunc(r.without, func(name string) bool { return values[name].set() })
}

func (r rule) problem(value, beside origin) Problem {
	p := Problem{Sources: []string{value.source}}
	p.Message = fmt.Sprintf("%s: %s: it has no effect ", value.source, Value{value.path, byName[r.field], value.text})
	if r.beside == "" {
		p.Message += "without " + strings.Join(r.without, " or ")
	} else {
		other := Value{Field: byName[r.beside], Text: beside.text}
		if beside.path != value.path {
			other.Path = beside.path
		}
		p.Message += "with " + other.String()
		if beside.source != value.source {
			p.Message += " of " + beside.source
			p.Sources = append(p.Sources, beside.source)
		}
	}
	if r.hint != "" {
		p.Message += ", " + r.hint
	}
	return p
}

// Sources returns the Sources of the layers that say what fields are for the requests of a path,
// in the order of the fields; "" is the whole service.
func (s Settings) Sources(path Path, fields ...string) (sources []string) {
	if s.said == nil {
		return nil
	}
	values := s.said.values(s.narrowest(path))
	for _, name := range fields {
		if v := values[name]; v.set() && !slices.Contains(sources, v.source) {
			sources = append(sources, v.source)
		}
	}
	return sources
}
