package routing

import (
	"regexp"
	"strings"

	"lbctl/internal/policy"
)

// Replaced says how a prefix of a path is replaced by another one.
type Replaced struct {
	From string // "/api"; empty: all paths have it
	To   string // "/v2"; empty: the prefix goes
	// Keep is the end of To that may follow From in a path, which then has To already, and stays
	// as it is: "/v2" of "/api/v2" for From "/api". Empty: all paths change.
	Keep string
}

// NewReplaced returns how a field of a policy, path.replace-prefix or redirect.replace-prefix,
// replaces the paths of requests of a route; nil if they stay as they are. to is the field's
// value for the requests.
func NewReplaced(said policy.Settings, field, to string, route, requests policy.Path) *Replaced {
	if to == "" {
		return nil
	}
	of := said.PathOf(field, requests)
	from, _ := of.Exact()
	if of == "" {
		from = string(route)
	}
	r := &Replaced{From: strings.TrimSuffix(from, "/"), To: strings.TrimSuffix(to, "/")}
	if r.From == r.To {
		return nil
	}
	// A client comes back with the new path: if that is below the old prefix, it would be
	// redirected again, for ever.
	if below, ok := strings.CutPrefix(r.To, r.From); ok && field == "redirect.replace-prefix" && strings.HasPrefix(below, "/") {
		r.Keep = below
	}
	return r
}

// dotSegment is "." or ".." between slashes, with their codes: in PCRE and in Go.
const dotSegment = `(?:/|%2[fF])(?:\.|%2[eE]){1,2}`

// Pattern is a regular expression of nginx for the path and query as the client sends them. Its
// groups are the variables of nginx of which, after Start, the new path and query consist:
// $lb_rest and $lb_query.
//
// nginx chooses a location by the path without "%" and "..". A path that only then has the
// prefix does not match, and neither does one with "..", which another server would resolve
// against another path.
func (r Replaced) Pattern() string {
	const (
		end  = `(?=\?|\z)`
		dots = `(?![^?]*` + dotSegment + `(?=/|%2[fF]|\?|\z))`
	)
	rest := `(?<lb_rest>/[^?]*)?`
	if r.To == "" {
		rest = `(?:/(?<lb_rest>[^?]*))?`
	}
	keep := ""
	if r.Keep != "" {
		keep = "(?:" + regexp.QuoteMeta(r.Keep) + `(?=/|\?|\z))?`
	}
	return "^" + dots + regexp.QuoteMeta(r.From) + keep + rest + end + `(?<lb_query>.*)`
}

// Start is what comes before nginx's variables $lb_rest and $lb_query.
func (r Replaced) Start() string {
	if r.To == "" {
		return "/"
	}
	return r.To
}

var hasDotSegment = regexp.MustCompile(dotSegment + `(?:/|%2[fF]|\z)`)

// Apply does what nginx does with Pattern and Start: it returns the new path and query, false if
// those that the client sent do not match.
func (r Replaced) Apply(uri string) (replaced string, ok bool) {
	path, query := uri, ""
	if n := strings.IndexByte(uri, '?'); n >= 0 {
		path, query = uri[:n], uri[n:]
	}
	rest, ok := strings.CutPrefix(path, r.From)
	if !ok || rest != "" && rest[0] != '/' || hasDotSegment.MatchString(path) {
		return "", false
	}
	if r.To == "" {
		rest = strings.TrimPrefix(rest, "/")
	}
	if after, ok := strings.CutPrefix(rest, r.Keep); ok && (after == "" || after[0] == '/') {
		rest = after // the path has To already
	}
	return r.Start() + rest + query, true
}
