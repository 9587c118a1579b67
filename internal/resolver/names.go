package resolver

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// Service is what templates give as the parameter service of nginx's
// directive server, beside Host: nginx asks for the SRV records of
// _lb._tcp.<host>.
const Service = "lb"

// Domain has all host names of this package.
const Domain = zone

const (
	// zone is reserved for private use: nothing outside can answer for it.
	zone       = "lbctl.internal"
	srvPrefix  = "_" + Service + "._tcp."
	hostZone   = ".u." + zone
	targetZone = ".i." + zone
)

// Host is the host name under which nginx asks for an upstream's servers. The
// upstream's name must be a DNS label in lower case: at most 63 letters, digits,
// "-" and "_".
func Host(upstream string) string { return upstream + hostZone }

// targetLabel is the first part of the name of one server, in targetZone. It says the
// address, so that answering for it needs no memory, and works after a restart too.
// It has the port, so that no two servers share a name: nginx's consistent hash goes
// by it.
func targetLabel(server netip.AddrPort) string {
	return hex.EncodeToString(server.Addr().AsSlice()) + "-" + strconv.Itoa(int(server.Port()))
}

// targetAddr is the address that a target's name says.
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
