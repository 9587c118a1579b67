package endpoints

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Route is one way to a service. It matches a request that all its fields match; an empty
// field matches every request.
type Route struct {
	Host string `json:"host,omitempty"` // lower case, "*.example.com" allowed
	// Path is a prefix that ends at a "/": "/api" matches "/api" and "/api/x". With ".*" at
	// its end it is a gRPC package: "/shop.*" matches the methods of all gRPC services whose
	// full name begins with "shop.".
	Path  string `json:"path,omitempty"`
	Exact bool   `json:"exact,omitempty"` // Path is a whole path, and no prefix
	// Method is an HTTP method, in upper case.
	Method string `json:"method,omitempty"`
	// Headers has the headers that a request must have, as JoinHeaders writes them.
	Headers string `json:"headers,omitempty"`
}

// HeaderMatch is a header that a request must have.
type HeaderMatch struct {
	Name  string // lower case
	Value string // the whole value, in its case
}

var (
	methodPattern      = regexp.MustCompile(`^[A-Z][A-Z_-]{0,31}$`)
	headerNamePattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	headerValuePattern = regexp.MustCompile(`^[A-Za-z0-9._~@:+!/=-]{1,128}$`)
)

// ValidMethod reports whether a route can have the method.
func ValidMethod(method string) bool { return methodPattern.MatchString(method) }

// Valid reports whether a route can have the match.
func (m HeaderMatch) Valid() bool {
	return headerNamePattern.MatchString(m.Name) && headerValuePattern.MatchString(m.Value)
}

// JoinHeaders writes valid matches as the field Headers of a Route, "a=1,b=2": sorted, so that
// routes with the same matches are equal.
func JoinHeaders(matches []HeaderMatch) string {
	words := make([]string, len(matches))
	for n, m := range matches {
		words[n] = m.Name + "=" + m.Value
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}

// HeaderMatches returns the headers that a request must have, sorted by name.
func (r Route) HeaderMatches() []HeaderMatch {
	if r.Headers == "" {
		return nil
	}
	var matches []HeaderMatch
	for word := range strings.SplitSeq(r.Headers, ",") {
		name, value, _ := strings.Cut(word, "=")
		matches = append(matches, HeaderMatch{name, value})
	}
	return matches
}

// Conditional reports whether a request with the right host and path may still not match.
func (r Route) Conditional() bool { return r.Method != "" || r.Headers != "" }

// String returns the route for people: "example.com/api", "*" for any host, "*=/health" for a
// whole path, "GET example.com/api [x-version=v2]" with a method and headers.
func (r Route) String() string {
	text := cmp.Or(r.Host, "*")
	if r.Exact {
		text += "="
	}
	text += r.Path
	if r.Method != "" {
		text = r.Method + " " + text
	}
	if r.Headers != "" {
		text += " [" + r.Headers + "]"
	}
	return text
}

// knownMatches reports whether this lbctl knows the method and the headers of the route.
func (r Route) knownMatches() bool {
	return (r.Method == "" || ValidMethod(r.Method)) &&
		!slices.ContainsFunc(r.HeaderMatches(), func(m HeaderMatch) bool { return !m.Valid() })
}
