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

// A web page can make its own name resolve to 127.0.0.1, and then read the answers of
// this API through the browser (DNS rebinding). The browser sends the page's name as
// Host, so the API accepts only names of this machine. It accepts every IP address,
// because reaching an address needs no name resolution, so the attack can't use it. The
// machine does not know all its addresses either, such as those of a published port.

// hosts are the host names that the API accepts over TCP.
type hosts struct {
	names []string // lower case; "*.example.org" for all names below it, "*" for any
}

var hostPattern = regexp.MustCompile(`^(\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)$`)

// CheckAllowedHost returns an error if name can't be an element of
// Server.AllowedHosts.
func CheckAllowedHost(name string) error {
	if !hostPattern.MatchString(name) {
		return errors.New(`want names without a port, such as lb.example.com, *.example.org for all names below it, or * for any`)
	}
	return nil
}

// newHosts returns the machine's own names and the allowed ones.
func newHosts(allowed []string) hosts {
	names := []string{"localhost", "*.localhost"} // loopback, by RFC 6761
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

// allows reports whether the API accepts a request with this Host header.
func (h hosts) allows(header string) bool {
	if header == "" { // a health check with HTTP/1.0; a browser always sends Host
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

// restrict refuses requests with another Host.
func (h hosts) restrict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.allows(r.Host) {
			writeError(w, http.StatusMisdirectedRequest, fmt.Errorf("the Host %q is not allowed, want an IP address or one of %s; "+
				"allow further names with --admin-allowed-hosts or LBCTL_ADMIN_ALLOWED_HOSTS", r.Host, strings.Join(h.names, ", ")))
			return
		}
		next.ServeHTTP(w, r)
	})
}
