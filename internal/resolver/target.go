package resolver

import (
	"net/netip"
	"slices"
)

// Target is one server of an upstream, as nginx is told of it.
type Target struct {
	Addr   netip.AddrPort
	Weight uint16 // 1 to 65535
}

// SameTargets reports whether two lists of targets say the same. It is fast where
// they are one and the same, as most are from one change to the next.
func SameTargets(a, b []Target) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// sentinel is the only server of an upstream that has none: nginx would forget
// an upstream whose answer is empty. Nobody can listen on port 0, so connecting
// is refused, and the templates make a proper 503 or UNAVAILABLE of it.
var sentinel = Target{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0), Weight: 1}

// Sentinel is the address, as in nginx's $upstream_addr, of the server that
// stands for "no server at all".
const Sentinel = "127.0.0.1:0"
