package controller

import (
	"maps"
	"regexp"
	"strings"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// Files of an older lbctl are read with these expressions. No service can forge such lines
// with one of its values: each value is a single word in another directive.
var (
	// olderDirective matches a server directive that makes nginx ask for an upstream. A
	// longer name doesn't fit into a DNS question: nginx never got an answer for it.
	olderDirective = regexp.MustCompile(`(?m)^\s*server\s+([a-z0-9_-]{1,63})` + regexp.QuoteMeta(resolver.Host("")) + `\s+service=` + resolver.Service + `\s+resolve\b`)
	// olderLocation matches the lines of a location that name its service and its upstream.
	olderLocation = regexp.MustCompile(`(?m)^\s*set \$lb_service "?([\w-]+)"?;\n(?:\s*if [^\n]*\n)?\s*(?:proxy|grpc)_pass \w+://"?([\w-]+)"?;$`)
)

// olderNames has the names that an older lbctl gave the upstreams of services, as far as
// the locations of a generation tell them. TCP services have no location.
type olderNames struct {
	byService map[string]string
	taken     map[string]bool // the upstreams in byService
}

// readOlder reads the files of a generation that an older lbctl stored.
func readOlder(files map[string][]byte) (upstreams map[string]bool, names olderNames) {
	upstreams = map[string]bool{}
	names = olderNames{byService: map[string]string{}, taken: map[string]bool{}}
	for _, file := range files {
		for _, match := range olderDirective.FindAllSubmatch(file, -1) {
			upstreams[string(match[1])] = true
		}
		for _, match := range olderLocation.FindAllSubmatch(file, -1) {
			upstream := strings.ToLower(string(match[2])) // as in nginx's question
			names.byService[string(match[1])] = upstream
			names.taken[upstream] = true
		}
	}
	return upstreams, names
}

// upstream returns the name of a service's upstream, "" if it had none. A service that no
// location names had its protocol and name as the upstream's, in lower case.
func (o olderNames) upstream(s endpoints.Service) string {
	name, ok := o.byService[s.Name]
	switch {
	case !ok:
		name = strings.ToLower(string(s.Protocol) + "-" + s.Name)
		if o.taken[name] {
			return ""
		}
	case !strings.HasPrefix(name, string(s.Protocol)+"-"):
		return "" // its protocol has changed
	}
	return name
}

// targets returns the servers of the services of cfg, by the names of their upstreams. A name
// that several services have, because theirs differ only in case, is left out.
func (o olderNames) targets(cfg *render.Configuration) map[string][]resolver.Target {
	all := make(map[string][]resolver.Target, len(cfg.Entries))
	services := make(map[string]int, len(cfg.Entries)) // how many have an upstream
	for _, e := range cfg.Entries {
		upstream := o.upstream(e.Service)
		if upstream == "" {
			continue
		}
		services[upstream]++
		name := render.UpstreamName(e.Protocol, e.Name)
		if targets, ok := cfg.Upstreams[name]; ok {
			all[upstream] = targets
		} else if targets, ok := cfg.Written[name]; ok {
			all[upstream] = targets
		}
	}
	maps.DeleteFunc(all, func(upstream string, _ []resolver.Target) bool { return services[upstream] > 1 })
	return all
}
