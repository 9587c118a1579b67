package routing

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"lbctl/internal/policy"
)

// policyPath returns the path of the policy that holds for the requests of a path as nginx
// compares it, the narrowest one; "" is that of the whole service.
func (l Listener) policyPath(w Way, path string) policy.Path {
	for _, own := range slices.Backward(w.Policy.Paths()) {
		if slices.ContainsFunc(PolicyPlaces(l.family(), own), func(p Place) bool { return p.Matches(path) }) {
			return own
		}
	}
	return ""
}

// PolicyAt returns the policy of a way for a path as nginx compares it.
func (l Listener) PolicyAt(w Way, path string) *policy.Policy {
	return w.Policy.At(l.policyPath(w, path))
}

// Explain returns all fields of a way's policy, with their values for a path as nginx compares it.
func (l Listener) Explain(w Way, path string) []policy.Explained {
	return w.Policy.Explain(l.family(), l.policyPath(w, path))
}

// answer returns nginx's own answer to a request that takes a way, nil if it asks an instance.
// The order is that of the directives in nginx's location.
func (l Listener) answer(r Request, d Decision, w Way, reading Reading) *Refusal {
	p := l.PolicyAt(w, d.Path)
	said := func(fields ...string) string { return l.said(w, d.Path, fields...) }
	if len(p.CORS.AllowOrigins) > 0 && l.preflight(r, reading) {
		return &Refusal{204, "nginx answers the preflight requests of browsers itself: " + said("cors.allow-origins")}
	}
	if refused := l.redirected(r, d, w, p); refused != nil {
		return refused
	}
	if p.Maintenance.Enabled == policy.On {
		return &Refusal{503, "the service is in maintenance: " + said("maintenance.enabled")}
	}
	if w.Upstream == "" && !w.Health {
		return nil
	}
	if kind, _ := l.header(r, "content-type", reading); l.family() == "grpc" && strings.HasPrefix(lower(kind), "application/grpc-web") {
		return &Refusal{415, "gRPC-Web is not translated: call with gRPC over HTTP/2"}
	}
	rewrite := l.replaced(w, "path.replace-prefix", p.Path.ReplacePrefix, d.Path)
	if rewrite != nil {
		if _, ok := rewrite.Apply(r.uri()); !ok {
			return unreplaceable(*rewrite, said("path.replace-prefix"))
		}
	}
	if kinds := l.keys(w, d.Path, p.Auth); len(kinds) > 0 && !l.proves(r, p.Auth, reading) {
		return &Refusal{401, "the request has no " + strings.Join(kinds, ", and no ")}
	}
	return nil
}

// said says what fields are set to, and who says so.
func (l Listener) said(w Way, path string, fields ...string) string {
	var texts []string
	for _, f := range l.Explain(w, path) {
		if slices.Contains(fields, f.Name) && f.Source != policy.SourceBuiltIn {
			texts = append(texts, fmt.Sprintf("%s %s, from %s", f.Name, f.Value, f.Source))
		}
	}
	return strings.Join(texts, "; ")
}

func unreplaceable(r Replaced, said string) *Refusal {
	return badRequest(`the path as the client sends it does not begin with %q, or it has "." or "..", so its prefix can't be replaced: %s`, cmp.Or(r.From, "/"), said)
}

func (l Listener) replaced(w Way, field, to, path string) *Replaced {
	return NewReplaced(w.Policy, field, to, policy.Path(strings.TrimSuffix(w.Path, "/")), l.policyPath(w, path))
}

var preflight = regexp.MustCompile(`^OPTIONS \S+ \S`)

// preflight reports whether a browser asks what a page of another origin may do.
func (l Listener) preflight(r Request, reading Reading) bool {
	origin, _ := l.header(r, "origin", reading)
	method, _ := l.header(r, "access-control-request-method", reading)
	return preflight.MatchString(r.Method + " " + origin + " " + method)
}

// redirected returns the redirect of a request by the way's policy, nil if there is none.
func (l Listener) redirected(r Request, d Decision, w Way, p *policy.Policy) *Refusal {
	to := p.Redirect
	if to.IsZero() {
		return nil
	}
	said := l.said(w, d.Path, "redirect.code", "redirect.scheme", "redirect.host", "redirect.path", "redirect.replace-prefix")
	uri := r.uri()
	if to.Path != "" {
		beforeFragment, _, _ := strings.Cut(uri, "#")
		_, args, _ := strings.Cut(beforeFragment, "?")
		uri = to.Path
		if args != "" {
			uri += "?" + args
		}
	} else if rewrite := l.replaced(w, "redirect.replace-prefix", to.ReplacePrefix, d.Path); rewrite != nil {
		replaced, ok := rewrite.Apply(uri)
		if !ok {
			return unreplaceable(*rewrite, said)
		}
		uri = replaced
	}
	scheme, host := "http", l.authority(r, d.Host)
	if l.Protocol.TLS() {
		scheme = "https"
	}
	target := cmp.Or(string(to.Scheme), scheme) + "://" + cmp.Or(to.Host, host) + uri
	if target == scheme+"://"+host+r.uri() {
		return nil
	}
	code := 307
	if to.Code != "" {
		fmt.Sscan(string(to.Code), &code)
	}
	return &Refusal{code, "nginx redirects to " + target + ": " + said}
}

// keys names the keys and passwords of which a request must have one, and who says so.
func (l Listener) keys(w Way, path string, a policy.Auth) (kinds []string) {
	if a.External != "" {
		return nil
	}
	if a.Keys == policy.On {
		kinds = append(kinds, fmt.Sprintf(`API key as "Authorization: Bearer KEY" or "X-API-Key: KEY" (%s)`, l.said(w, path, "auth.keys")))
	}
	if a.Basic == policy.On {
		kinds = append(kinds, fmt.Sprintf(`name and password by basic authentication (%s)`, l.said(w, path, "auth.basic")))
	}
	return kinds
}

// proves reports whether a request has a key or a password of a wanted kind, right or wrong.
func (l Listener) proves(r Request, a policy.Auth, reading Reading) bool {
	authorization, key := l.Credentials(r, reading)
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.TrimSpace(token)
	bearer := strings.EqualFold(scheme, "Bearer") && token != ""
	basic := strings.EqualFold(scheme, "Basic") && token != ""
	return a.Keys == policy.On && (key != "" || bearer) || a.Basic == policy.On && basic
}

// Credentials returns the headers Authorization and X-API-Key of a request, as nginx passes them on.
func (l Listener) Credentials(r Request, reading Reading) (authorization, key string) {
	authorization, _ = l.header(r, "authorization", reading)
	key, _ = l.header(r, "x-api-key", reading)
	return authorization, key
}

// condition says what must be so, besides, for an instance to get a request that takes a way;
// "" if there is nothing.
func (l Listener) condition(w Way, path string) string {
	a := l.PolicyAt(w, path).Auth
	if a.External != "" {
		return fmt.Sprintf("if the service %s lets it pass (%s)", a.External, l.said(w, path, "auth.external"))
	}
	kinds := l.keys(w, path, a)
	if len(kinds) == 0 {
		return ""
	}
	return "if it has a good " + strings.Join(kinds, ", or a good ")
}

// uri returns the path and query as the client sends them, without the host, as nginx's variable
// $request_uri has them.
func (r Request) uri() string {
	if strings.HasPrefix(r.Target, "/") {
		return r.Target
	}
	_, rest, _ := strings.Cut(r.Target, "://")
	if path := strings.IndexAny(rest, "/?#"); path >= 0 {
		return rest[path:]
	}
	return "/"
}

// authority returns the host of the request with its port, as redirects keep it: that of the
// target in lower case, or the header Host as the client sends it, or else nginx's address.
func (l Listener) authority(r Request, host string) string {
	if strings.HasPrefix(r.Target, "/") {
		if r.NoHost && len(l.Addresses) > 0 {
			return l.Addresses[0]
		}
		return r.Host
	}
	_, rest, _ := strings.Cut(r.Target, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, ']') && colon < len(rest)-1 {
		host += rest[colon:]
	}
	return host
}
