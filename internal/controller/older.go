package controller

import (
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

// targets returns the servers of the service with this upstream. It returns false if there
// is none, or if there are several, whose names differ only in case.
func (o olderNames) targets(cfg *render.Configuration, upstream string) ([]resolver.Target, bool) {
	var found []string
	for _, e := range cfg.Entries {
		if o.upstream(e.Service) == upstream {
			found = append(found, render.UpstreamName(e.Protocol, e.Name))
		}
	}
	if len(found) != 1 {
		return nil, false
	}
	if targets, ok := cfg.Upstreams[found[0]]; ok {
		return targets, true
	}
	targets, ok := cfg.Written[found[0]]
	return targets, ok
}
