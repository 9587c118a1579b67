// Package routing decides which route a request takes. Its order of routes makes nginx's
// locations, and Match follows a request through the same order.
package routing

import (
	"cmp"
	"strings"

	"lbctl/internal/endpoints"
)

// Compare returns a negative number if a request that matches both routes takes a, a positive
// one if it takes b, and 0 only if they are equal. Host goes before path, path before method,
// and method before headers. Of two routes that differ only in the names or values of their
// headers, the first in alphabetical order wins.
func Compare(a, b endpoints.Route) int {
	return cmp.Or(
		compareHosts(a.Host, b.Host),
		trueFirst(a.Exact, b.Exact),
		cmp.Compare(pathLength(b), pathLength(a)),
		strings.Compare(a.Path, b.Path),
		trueFirst(a.Method != "", b.Method != ""),
		cmp.Compare(len(b.HeaderMatches()), len(a.HeaderMatches())),
		strings.Compare(a.Headers, b.Headers),
		strings.Compare(a.Method, b.Method),
	)
}

// compareHosts puts host names first, then wildcards, the longest first, then "" for any host.
func compareHosts(a, b string) int {
	rank := func(host string) int {
		switch {
		case host == "":
			return 2
		case strings.HasPrefix(host, "*"):
			return 1
		default:
			return 0
		}
	}
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	if rank(a) == 1 && len(a) != len(b) {
		return cmp.Compare(len(b), len(a))
	}
	return strings.Compare(a, b)
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// pathLength is the length of the text with which a path that matches begins.
func pathLength(r endpoints.Route) int { return len(strings.TrimSuffix(r.Path, "*")) }

// Hosts returns the hosts of routes that match a host: the host itself, the wildcards that
// match it, the longest first, and "" for any host. The host may itself be a wildcard, or "".
func Hosts(host string) []string {
	if host == "" {
		return []string{""}
	}
	hosts := []string{host}
	for rest := strings.TrimPrefix(host, "*."); ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		hosts = append(hosts, "*."+parent)
		rest = parent
	}
	return append(hosts, "")
}
