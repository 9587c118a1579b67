package resolver

import (
	"net/netip"
	"slices"
)

// Target is one server of an upstream, as in an answer to nginx.
type Target struct {
	Addr   netip.AddrPort
	Weight uint16 // 1 to 65535
}

// SameTargets reports whether two lists of targets are equal. It is fast if they share
// their memory, as most lists do from one change to the next.
func SameTargets(a, b []Target) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// sentinel is the only server of an upstream that has none: an empty answer would remove
// all servers in nginx. Nobody can listen on port 0, so connecting fails, and the templates
// turn that into a 503 or UNAVAILABLE.
var sentinel = Target{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0), Weight: 1}

// Sentinel is the address, as in nginx's $upstream_addr, of the server that means "no
// server at all".
const Sentinel = "127.0.0.1:0"
