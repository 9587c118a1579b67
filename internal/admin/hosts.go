package admin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A web page can have its own name resolve to 127.0.0.1, and then read what this API
// answers the browser (DNS rebinding). The browser sends the page's name as Host, so
// only names that are this machine's are answered. Addresses are answered, whichever
// they are: no name is resolved to get there, so no page can pose as one. A machine
// can't know them all either, such as those under which a container is published.

// hosts are the names that the API is asked by over TCP.
type hosts struct {
	names []string // lower case; "*.example.org" for all below it, "*" for any
}

var hostPattern = regexp.MustCompile(`^(\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)$`)

// CheckAllowedHost says what is wrong with an element of Server.AllowedHosts.
func CheckAllowedHost(name string) error {
	if !hostPattern.MatchString(name) {
		return errors.New(`want names without a port, such as lb.example.com, *.example.org for all below it, or * for any`)
	}
	return nil
}

// newHosts are the machine's own names, and the allowed ones.
func newHosts(allowed []string) hosts {
	names := []string{"localhost", "*.localhost"} // which mean loopback, by RFC 6761
	if own, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(own, ".")
		names = append(names, own, short)
	}
	names = append(names, allowed...)
	for i, name := range names {
		names[i] = canonical(name)
	}
	slices.Sort(names)
	return hosts{slices.Compact(names)}
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// allows reports whether a request with this Host header is answered.
func (h hosts) allows(header string) bool {
	if header == "" { // HTTP/1.0 of a health check; a browser always sends one
		return true
	}
	host := header
	if name, _, err := net.SplitHostPort(header); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	host = canonical(host)
	return slices.ContainsFunc(h.names, func(name string) bool {
		below, wildcard := strings.CutPrefix(name, "*")
		return name == host || wildcard && len(host) > len(below) && strings.HasSuffix(host, below)
	})
}

// only refuses requests that come by another name, and says what to do about it.
func (h hosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.allows(r.Host) {
			fail(w, http.StatusMisdirectedRequest, fmt.Errorf("the host %q is not one of this daemon's, which are any IP address and %s; "+
				"allow further names with --admin-allowed-hosts or LBCTL_ADMIN_ALLOWED_HOSTS", r.Host, strings.Join(h.names, ", ")))
			return
		}
		next.ServeHTTP(w, r)
	})
}
