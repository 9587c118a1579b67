package policy

import (
	"regexp"
	"strconv"
	"strings"
)

// Redirect sends clients to another address. A part that is empty stays as in the request;
// without any part there is no redirect.
type Redirect struct {
	Code          RedirectCode
	Scheme        Scheme
	Host          string // with a port if it is not the scheme's own
	Path          string // instead of the whole path
	ReplacePrefix string // instead of the prefix of the path, see PathRewrite
}

// RedirectCode is the status of a redirect.
type RedirectCode string

// Scheme is that of an URL: "http" or "https".
type Scheme string

// IsZero reports whether there is no redirect, whatever the code.
func (r Redirect) IsZero() bool {
	return r.Scheme == "" && r.Host == "" && r.Path == "" && r.ReplacePrefix == ""
}

// PathRewrite changes the path that instances see.
type PathRewrite struct {
	// ReplacePrefix takes the place of the path for which it is said, or of the route's path if
	// it is said for the whole service: see Settings.PathOf. "/" removes the prefix.
	ReplacePrefix string
}

var (
	redirectHost = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[1-9][0-9]{0,4})?$`)
	plainPath    = regexp.MustCompile(`^/$|^(/[A-Za-z0-9._~@:+-]+)+$`)
)

// validRedirectHost refuses the schemes' own ports: clients leave them out of the header Host, and
// nginx would redirect them again, for ever.
func validRedirectHost(text string) bool {
	_, port, _ := strings.Cut(text, ":")
	n, _ := strconv.Atoi(port)
	return len(text) <= 253 && redirectHost.MatchString(text) && text != BuiltIn && n <= 65535 && n != 80 && n != 443
}

const wantPrefix = `"/", or a path like "/v2" of letters, digits and "._~@:+-", without "/" at its end`

func plainPaths(want string, more *regexp.Regexp) kind[string] {
	return texts[string](want, func(text string) bool {
		return len(text) <= 256 && (plainPath.MatchString(text) || more != nil && more.MatchString(text)) && !nowhereSegment.MatchString(text)
	})
}

// redirectPath may have a "/" at its end.
var redirectPath = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+-]+)+/$`)

var redirectFields = []Field{
	field("redirect.code", func(p *Policy) *RedirectCode { return &p.Redirect.Code }, oneOf[RedirectCode]("301", "302", "303", "307", "308"), "308",
		"The status of a redirect. Browsers keep 301 and 308 for a long time; with 307 and 308 they repeat the method, with 303 they send a GET.",
		families(HTTP), defaults("307"), perPath),
	field("redirect.scheme", func(p *Policy) *Scheme { return &p.Redirect.Scheme }, oneOf[Scheme]("http", "https"), "https",
		"Redirects requests with another scheme to this one. Each part of the address that no field of redirect names stays as it is; a request that is for the target already reaches the service.",
		families(HTTP), perPath),
	field("redirect.host", func(p *Policy) *string { return &p.Redirect.Host },
		texts[string](`a host name like "www.example.com" in lower case, with the port if it is not 80 or 443`, validRedirectHost), "www.example.com",
		"Redirects requests for other hosts to this one.",
		families(HTTP), perPath),
	field("redirect.path", func(p *Policy) *string { return &p.Redirect.Path },
		plainPaths(`a path like "/new" or "/new/" of letters, digits and "._~@:+-/"`, redirectPath), "/new",
		"Redirects requests for other paths to this one, with their query.",
		families(HTTP), perPath),
	field("redirect.replace-prefix", func(p *Policy) *string { return &p.Redirect.ReplacePrefix }, plainPaths(wantPrefix, nil), "/v2",
		"Redirects requests to the path that has this prefix instead of the path for which the field is said, or instead of the route's path if it is said for the whole service.",
		families(HTTP), perPath),
}

var pathFields = []Field{
	field("path.replace-prefix", func(p *Policy) *string { return &p.Path.ReplacePrefix }, plainPaths(wantPrefix, nil), "/",
		"Instances see paths that have this prefix instead of the path for which the field is said, or instead of the route's path if it is said for the whole service. / removes the prefix. The rest of the path and the query stay as they are, byte for byte.",
		families(HTTP), perPath),
}
