package resolver

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// Service is what templates give as the parameter service of nginx's
// directive server, beside Host: nginx asks for the SRV records of
// _lb._tcp.<host>.
const Service = "lb"

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

// Asked is the host names, as Host gives them, of the upstreams that files of
// nginx's configuration have it ask for. A template of an operator's own need not
// have any.
func Asked(files map[string][]byte) map[string]bool {
	asked := map[string]bool{}
	for _, rest := range files {
		for {
			end := bytes.Index(rest, []byte(hostZone))
			if end < 0 {
				break
			}
			begin := end
			for begin > 0 && isLabel(rest[begin-1]) {
				begin--
			}
			if begin < end {
				asked[string(rest[begin:end])+hostZone] = true
			}
			rest = rest[end+len(hostZone):]
		}
	}
	return asked
}

func isLabel(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

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
