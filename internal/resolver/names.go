package resolver

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// Service is the parameter service of nginx's directive server in the templates, beside
// Host: nginx asks for the SRV records of _lb._tcp.<host>.
const Service = "lb"

// Domain contains all host names of this package.
const Domain = zone

const (
	// zone is reserved for private use: no public DNS server answers for it.
	zone       = "lbctl.internal"
	srvPrefix  = "_" + Service + "._tcp."
	hostZone   = ".u." + zone
	targetZone = ".i." + zone
)

// Host returns the host name by which nginx asks for an upstream's servers. The upstream's
// name must be a DNS label in lower case: at most 63 letters, digits, "-" and "_".
func Host(upstream string) string { return upstream + hostZone }

// targetLabel returns the first label of a server's name in targetZone. The label contains
// the address, so the Server can answer for it without memory, also after a restart. It
// contains the port too, so that no two servers share a name: nginx's consistent hash uses
// the name.
func targetLabel(server netip.AddrPort) string {
	return hex.EncodeToString(server.Addr().AsSlice()) + "-" + strconv.Itoa(int(server.Port()))
}

// targetAddr returns the address in a target's name.
func targetAddr(name string) (netip.Addr, bool) {
	label, ok := strings.CutSuffix(strings.TrimSuffix(name, "."), targetZone)
	if !ok {
		return netip.Addr{}, false
	}
	digits, _, _ := strings.Cut(label, "-")
	b, err := hex.DecodeString(digits)
	if err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(b)
}
