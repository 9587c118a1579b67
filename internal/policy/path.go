package policy

import (
	"fmt"
	"regexp"
	"strings"

	"lbctl/internal/printable"
)

// Path says for which requests of a service a part of its policy holds: "/api" for that path
// and all below it, "=/api" for that path alone. For gRPC it is "/package.Service" or
// "/package.Service/Method".
type Path string

var (
	locationPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~@:+!-]+)+$`)
	nowhereSegment  = regexp.MustCompile(`/\.{1,2}(/|$)`)
)

// MaxPath is the longest path for which nginx 1.22 finds the location: it keeps the length of what
// comes after the first "/" in one byte, and the location of a prefix ends with "/".
const MaxPath = 255

// IsLocation reports whether a location of nginx can have a path, other than "/" and without "/" at
// its end: "/api", or "/package.Service/Method".
func IsLocation(path string) bool {
	return len(path) <= MaxPath && locationPattern.MatchString(path) && !nowhereSegment.MatchString(path)
}

const wantPath = `a path like "/api", "=/api" or "/package.Service/Method", of at most 255 letters, digits and "._~@:+!-", without "/" at its end`

// ParsePath checks a path.
func ParsePath(text string) (Path, error) {
	p := Path(text)
	if path, exact := p.Exact(); len(text) > MaxPath || !IsLocation(path) && !(exact && path == "/") {
		return "", fmt.Errorf("path %q, want %s", printable.Shorten(text), wantPath)
	}
	return p, nil
}

// Exact reports whether it is one path alone, and returns the path without the mark for that.
func (p Path) Exact() (path string, exact bool) {
	path, exact = strings.CutPrefix(string(p), "=")
	return path, exact
}

// Covers reports whether the settings of p hold for all requests of another path too.
func (p Path) Covers(other Path) bool {
	if p == other {
		return true
	}
	if _, exact := p.Exact(); exact {
		return false
	}
	path, _ := other.Exact()
	return path == string(p) || strings.HasPrefix(path, string(p)+"/")
}
