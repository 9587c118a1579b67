package policy

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Headers has the changes of headers, or of metadata for gRPC.
type Headers struct {
	Request  HeaderChanges // before nginx passes the request on
	Response HeaderChanges // before the client gets the answer of an instance
	// Security adds the headers that keep browsers from unsafe use of an answer.
	Security Switch
}

// HeaderChanges are the changes of one direction. Names are in the form "X-Team-Id". A name
// in Remove goes first, so that Set and Add hold for it.
type HeaderChanges struct {
	Set    []Pair
	Add    []Pair
	Remove []string
}

// HeaderPlaceholders are the words that stand for a part of the request in the value of a header.
var HeaderPlaceholders = []string{"{host}", "{remote-address}", "{request-id}", "{scheme}", "{service}"}

// maxHeaders is how many headers a field of one document may have.
const maxHeaders = 12

const (
	wantHeaderName  = `names of at most 46 letters, digits, "-" and "_", none that carries the protocol (Host, Connection, Content-Type, Content-Length, TE, Grpc-...) or that lbctl or nginx sets (X-Forwarded-..., X-Real-IP, X-Request-Id, traceparent, tracestate, b3, X-B3-..., Server, Date)`
	wantHeaderPairs = `up to 12 headers like "X-Team=shop", or a JSON object: ` + wantHeaderName + `; values of printable ASCII without "$" and with no other {placeholder} than {host}, {remote-address}, {request-id}, {scheme} and {service}`
	wantHeaderNames = "up to 12 names of headers, separated by commas: " + wantHeaderName
)

var (
	// nginx's tables have no room for longer names.
	headerName        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,45}$`)
	headerValue       = regexp.MustCompile(`^[!-#%-~]([ -#%-~]{0,998}[!-#%-~])?$`)
	headerPlaceholder = regexp.MustCompile(`\{[a-z-]+\}`)

	// What carries the protocol.
	protocolHeaders = headerGroup{
		names: []string{
			"connection", "content-encoding", "content-length", "content-type", "expect", "host", "http2-settings", "keep-alive",
			"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
		},
		prefixes: []string{"grpc-", "sec-websocket-", "x-accel-"},
	}
	// What lbctl or nginx sets. Earlier versions of lbctl let policies change some of them.
	ownHeaders = headerGroup{
		names:    []string{"b3", "date", "server", "traceparent", "tracestate", "x-client-cert-subject", "x-lb-user", "x-real-ip", "x-request-id"},
		prefixes: []string{"x-b3-", "x-forwarded-"},
	}
)

// headerGroup is a group of headers, in lower case. Some programs take "_" for "-", so they are
// the same here.
type headerGroup struct{ names, prefixes []string }

func (g headerGroup) has(name string) bool {
	low := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return slices.Contains(g.names, low) || slices.ContainsFunc(g.prefixes, func(prefix string) bool { return strings.HasPrefix(low, prefix) })
}

// validHeaderName reports whether a policy may change the header. Names of binary metadata, which
// end with "-bin", are left to the programs: their values are not text.
func validHeaderName(name string) bool {
	low := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return headerName.MatchString(name) && !protocolHeaders.has(name) && !ownHeaders.has(name) && !strings.HasSuffix(low, "-bin")
}

// whyNotHeader says why a policy can't change a header, given as "NAME" or "NAME=VALUE"; "" if it
// is not for its name.
func whyNotHeader(header string) string {
	name, _, _ := strings.Cut(header, "=")
	if !ownHeaders.has(name) {
		return ""
	}
	return fmt.Sprintf("lbctl or nginx sets %s itself, and no policy can: take it out", name)
}

func validHeaderValue(value string) bool {
	if !headerValue.MatchString(value) {
		return false
	}
	for _, placeholder := range headerPlaceholder.FindAllString(value, -1) {
		if !slices.Contains(HeaderPlaceholders, placeholder) {
			return false
		}
	}
	return true
}

// headerPairs are headers with values. The case of a name does not matter.
func headerPairs() kind[[]Pair] {
	k := pairsOf(wantHeaderPairs, maxHeaders, func(name, value string) bool { return validHeaderName(name) && validHeaderValue(value) })
	parse := k.parse
	k.parse = func(text string) ([]Pair, bool) {
		pairs, ok := parse(text)
		for n := range pairs {
			pairs[n].Name = http.CanonicalHeaderKey(pairs[n].Name)
		}
		slices.SortFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
		once := slices.CompactFunc(slices.Clone(pairs), func(a, b Pair) bool { return a.Name == b.Name })
		return pairs, ok && len(once) == len(pairs)
	}
	k.why = whyNotHeader
	return k
}

// headerNames are names of headers.
func headerNames() kind[[]string] {
	name := texts[string]("", validHeaderName)
	name.parse = func(text string) (string, bool) { return http.CanonicalHeaderKey(text), validHeaderName(text) }
	k := distinct(listsOf(wantHeaderNames, maxHeaders, name))
	k.why = whyNotHeader
	return k
}

var headerFields = []Field{
	field("headers.request.set", func(p *Policy) *[]Pair { return &p.Headers.Request.Set }, headerPairs(), "X-Team=shop, X-Client={remote-address}",
		"Headers that instances get with exactly this value, whatever the client sends. {host}, {remote-address}, {request-id}, {scheme} and {service} stand for those of the request. Each name counts by itself where several layers have some.",
		perPath),
	field("headers.request.add", func(p *Policy) *[]Pair { return &p.Headers.Request.Add }, headerPairs(), "X-Path=lb",
		"Headers that instances get besides those of the client, also if it sends one of the same name. The values are like those of headers.request.set.",
		perPath),
	field("headers.request.remove", func(p *Policy) *[]string { return &p.Headers.Request.Remove }, headerNames(), "X-Debug, X-Internal-User",
		"Headers of the client that instances don't get. They are removed before others are set and added.",
		perPath),
	field("headers.response.set", func(p *Policy) *[]Pair { return &p.Headers.Response.Set }, headerPairs(), "Cache-Control=no-store",
		"Headers that clients get with exactly this value in all answers of instances, whatever the instance sends. The values are like those of headers.request.set.",
		perPath),
	field("headers.response.add", func(p *Policy) *[]Pair { return &p.Headers.Response.Add }, headerPairs(), "X-Served-By={service}",
		"Headers that clients get besides those of the instance, also if it sends one of the same name. The values are like those of headers.request.set.",
		perPath),
	field("headers.response.remove", func(p *Policy) *[]string { return &p.Headers.Response.Remove }, headerNames(), "X-Powered-By",
		"Headers of instances that clients don't get. They are removed before others are set and added.",
		perPath),
	field("headers.security", func(p *Policy) *Switch { return &p.Headers.Security }, switches(), "on",
		"Adds X-Content-Type-Options: nosniff, Referrer-Policy: strict-origin-when-cross-origin, X-Frame-Options: SAMEORIGIN and Content-Security-Policy: frame-ancestors 'self' to answers that have no such header. It is off by default, because it changes what browsers do with a site: other sites can no longer show it in a frame, and get less of its addresses.",
		families(HTTP), defaults(string(Off)), perPath),
}
