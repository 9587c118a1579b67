package render

import (
	"regexp"
	"strings"
)

// Replaced says how a prefix of a path is replaced by another one.
type Replaced struct {
	From string // "/api"; empty: all paths have it
	To   string // "/v2"; empty: the prefix goes
}

// Pattern is a regular expression for the path and query as the client sends them. Its groups
// are the variables of nginx of which, after To, the new path and query consist: see Rest.
//
// nginx chooses a location by the path without "%" and "..". A path that only then has the
// prefix does not match, and neither does one with "..", which another server would resolve
// against another path.
func (r Replaced) Pattern() string {
	const (
		end  = `(?=\?|\z)`
		dots = `(?![^?]*(?:/|%2[fF])(?:\.|%2[eE]){1,2}(?=/|%2[fF]|\?|\z))`
	)
	rest := `(?<lb_rest>/[^?]*)?`
	if r.To == "" {
		rest = `(?:/(?<lb_rest>[^?]*))?`
	}
	return "^" + dots + regexp.QuoteMeta(r.From) + rest + end + `(?<lb_query>.*)`
}

// Start is what comes before nginx's variables $lb_rest and $lb_query.
func (r Replaced) Start() string {
	if r.To == "" {
		return "/"
	}
	return r.To
}

// Rewrite returns how the path is replaced for instances, nil if it stays as it is.
func (l Location) Rewrite() *Replaced {
	return l.replaced("path.replace-prefix", l.Policy.Path.ReplacePrefix)
}

// RedirectRewrite returns how a redirect replaces the path, nil if it keeps or names the path.
func (l Location) RedirectRewrite() *Replaced {
	if l.Policy.Redirect.Path != "" {
		return nil
	}
	return l.replaced("redirect.replace-prefix", l.Policy.Redirect.ReplacePrefix)
}

func (l Location) replaced(field, to string) *Replaced {
	if to == "" {
		return nil
	}
	said := l.Spec.Policy.PathOf(field, l.policyPath)
	from, _ := said.Exact()
	if said == "" {
		from = string(l.routePath)
	}
	r := &Replaced{From: strings.TrimSuffix(from, "/"), To: strings.TrimSuffix(to, "/")}
	if r.From == r.To {
		return nil
	}
	return r
}

// forwardedPrefix tells instances which prefix of the path they don't see.
func (l Location) forwardedPrefix() []Header {
	if r := l.Rewrite(); r != nil && r.From != "" {
		return []Header{{Name: "X-Forwarded-Prefix", Values: []string{r.From}}}
	}
	return nil
}
