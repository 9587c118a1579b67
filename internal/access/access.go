// Package access decides who may use the balancer: by address, and by key or password.
//
// The operator's rules and keys are documents in Consul. A [Keeper] has the last good ones, also
// over a restart while Consul is away. [Networks] are the rules about addresses in the form that
// nginx wants. An [Answerer] checks keys and passwords for nginx.
package access

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// Limits of what an operator can set.
const (
	MaxRules = 200_000 // rules about networks
	MaxWhy   = 200     // characters of a reason
)

// Write is what one command said about some networks.
type Write struct {
	Service string    // empty: every service
	Allow   bool      // the networks are let in, although a larger one is denied
	Until   time.Time // zero: without end
	By      string    // who: "alice@ops-1"
	At      time.Time
	Why     string
}

// Rule says whether the addresses of a network are let in. Of two rules for the same service,
// the one with the smaller network counts. A request must be let in twice: by the rules for
// every service, and by those for its own.
type Rule struct {
	Network netip.Prefix // without bits beyond its length
	*Write
}

// Over reports whether the rule has ended.
func (r Rule) Over(now time.Time) bool { return !r.Until.IsZero() && !r.Until.After(now) }

// NetworkText returns a network as people write it: "203.0.113.7", "203.0.113.0/24".
func NetworkText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// All has the networks that "all" means.
var All = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// ParseNetworks returns the network that a text means, or two for "all". The text is an
// address, a network like 203.0.113.0/24, or "all".
func ParseNetworks(text string) ([]netip.Prefix, error) {
	if text == "all" {
		return All, nil
	}
	p, err := parseNetwork(text)
	if err != nil {
		return nil, err
	}
	return []netip.Prefix{p}, nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	none := netip.Prefix{}
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return none, fmt.Errorf("network %q: want an address or a network, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return none, fmt.Errorf("network %q: want an address or a network, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32", text)
	case p.Addr().Is4In6():
		return none, fmt.Errorf("network %q: want the IPv4 network itself, without \"::ffff:\"", text)
	case p != p.Masked():
		return none, fmt.Errorf("network %q has bits beyond its length, want %s or another length", text, p.Masked())
	}
	return p, nil
}

var servicePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// CheckService returns an error if a text can't be the name of a balanced service.
func CheckService(name string) error {
	if !servicePattern.MatchString(name) {
		return fmt.Errorf(`service %q: want up to 255 letters, digits, "-" and "_"`, name)
	}
	return nil
}
