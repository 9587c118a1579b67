package policy

import (
	"regexp"
	"strings"
	"time"
)

// Algorithm chooses the instance for a request, the field "balance.algorithm":
//
//	round_robin       one after the other, by weight; the default, also when empty
//	least_conn        the one with the fewest requests for its weight
//	random            of two random ones, the one with fewer requests
//	hash:address      always the same one for a client's address
//	hash:path         always the same one for a path
//	hash:header:NAME  always the same one for the value of a header
//	hash:cookie:NAME  always the same one for the value of a cookie
type Algorithm string

// The algorithms without a key.
const (
	RoundRobin Algorithm = "round_robin"
	LeastConn  Algorithm = "least_conn"
	Random     Algorithm = "random"
)

var (
	hashHeader = regexp.MustCompile(`^hash:header:([a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?)$`)
	hashCookie = regexp.MustCompile(`^hash:cookie:([A-Za-z0-9_]{1,64})$`)
)

// HashKey returns nginx's variable by which the algorithm chooses; "" if it doesn't hash.
func (a Algorithm) HashKey() string {
	switch a {
	case "hash:address":
		return "$remote_addr"
	case "hash:path":
		return "$uri"
	}
	if match := hashHeader.FindStringSubmatch(string(a)); match != nil {
		return "$http_" + strings.ReplaceAll(match[1], "-", "_")
	}
	if match := hashCookie.FindStringSubmatch(string(a)); match != nil {
		return "$cookie_" + match[1]
	}
	return ""
}

func (a Algorithm) valid() bool {
	return a == RoundRobin || a == LeastConn || a == Random || a.HashKey() != ""
}

// forTCP reports whether nginx can use it for TCP.
func (a Algorithm) forTCP() bool { return a.HashKey() == "" || a == "hash:address" }

// Sticky keeps a client at an instance by a cookie.
type Sticky struct {
	Cookie string
	TTL    Duration
	Path   string
	Secure Switch
}

var (
	stickyCookie = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	stickyPath   = regexp.MustCompile(`^/([A-Za-z0-9._~@:+!-]+/?)*$`)
)

// stickySince is the first nginx with the directive sticky.
const stickySince = "1.29.6"

var balanceFields = []Field{
	field("balance.algorithm", func(p *Policy) *Algorithm { return &p.Balance },
		texts[Algorithm](`"round_robin", "least_conn", "random", "hash:address", "hash:path", "hash:header:NAME" with a header in lower case, or "hash:cookie:NAME" with a cookie of letters, digits and "_"`,
			func(text string) bool { return Algorithm(text).valid() }),
		"least_conn",
		"How nginx chooses the instance for a request. round_robin takes one after the other, by weight. least_conn takes the one with the fewest requests for its weight, and random the better one of two random ones. "+
			"hash takes the same instance for the same address, path, header or cookie, also when others come or go (consistent hashing). Requests without the header or cookie go to all instances in turn.",
		everyFamily, defaults(string(RoundRobin)), begins(string(RoundRobin), string(LeastConn), string(Random), "hash:address", "hash:path", "hash:header:", "hash:cookie:"), suits(func(family string, v Value) string {
			if family == TCP && !Algorithm(v.Text).forTCP() {
				return `it has no effect on tcp services, want "hash:address"`
			}
			return ""
		})),
	field("sticky.cookie", func(p *Policy) *string { return &p.Sticky.Cookie },
		texts[string](`the name of a cookie, of letters, digits, "-" and "_"`, func(text string) bool { return text != BuiltIn && stickyCookie.MatchString(text) }), "lb",
		"The name of a cookie by which nginx sends a client to the same instance again. nginx sets it, and its value does not show the instance's address. If the instance is gone, balance.algorithm chooses another one.",
		since(stickySince)),
	field("sticky.ttl", func(p *Policy) *Duration { return &p.Sticky.TTL }, durations(time.Second, 8760*time.Hour), "1h",
		"How long a client keeps the cookie of sticky.cookie. The default is until the browser ends.",
		unit("duration"), since(stickySince)),
	field("sticky.path", func(p *Policy) *string { return &p.Sticky.Path },
		texts[string](`a path like "/shop"`, func(text string) bool { return len(text) <= 256 && stickyPath.MatchString(text) }), "/shop",
		"The path for which a client sends the cookie of sticky.cookie. The default is the path of its first request.",
		since(stickySince)),
	field("sticky.secure", func(p *Policy) *Switch { return &p.Sticky.Secure }, switches(), "on",
		"Whether a client sends the cookie of sticky.cookie over TLS only.",
		defaults(string(Off)), since(stickySince)),
}
