package resolver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// many returns n targets with the longest possible names.
func many(n int, v6 bool) []Target {
	all := make([]Target, n)
	for k := range all {
		addr := netip.AddrFrom4([4]byte{10, 1, byte(k >> 8), byte(k)})
		if v6 {
			addr = netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(k >> 8), 15: byte(k)})
		}
		all[k] = Target{netip.AddrPortFrom(addr, 65535), uint16(k + 1)}
	}
	return all
}

func TestAnswersAreStandardDNS(t *testing.T) {
	query := srvPrefix + Host("grpc-a") + "."
	for name, want := range map[string][]Target{"IPv4": many(3, false), "IPv6": many(3, true), "both": append(many(2, true), many(2, false)...)} {
		t.Run(name, func(t *testing.T) {
			answer, whole := pack(query, want)
			assert.True(t, whole)
			var m dns.Msg
			require.NoError(t, m.Unpack(answer))
			assert.True(t, m.Response && m.Authoritative && !m.Truncated)
			require.Len(t, m.Question, 1)
			assert.Equal(t, dns.Question{Name: query, Qtype: dns.TypeSRV, Qclass: dns.ClassINET}, m.Question[0])
			require.Equal(t, len(want), len(m.Answer))
			for n, rr := range m.Answer {
				srv := rr.(*dns.SRV)
				addr, ok := targetAddr(srv.Target)
				assert.True(t, ok)
				assert.Equal(t, want[n], Target{netip.AddrPortFrom(addr, srv.Port), srv.Weight})
				assert.Zero(t, srv.Hdr.Ttl)
				assert.Zero(t, srv.Priority)
			}
		})
	}
}

func TestHowManyServersFit(t *testing.T) {
	longest := srvPrefix + Host(strings.Repeat("x", 63)) + "."
	for name, c := range map[string]struct {
		v6   bool
		fits int
	}{"IPv4": {false, 1864}, "IPv6": {true, 1105}} {
		t.Run(name, func(t *testing.T) {
			assert.True(t, Fits(many(c.fits, c.v6)))
			assert.False(t, Fits(many(c.fits+1, c.v6)))
			all := packAll(longest, many(c.fits, c.v6))
			assert.LessOrEqual(t, len(all), Size(many(c.fits, c.v6)), "Size is at least the packed size")
			var m dns.Msg
			require.NoError(t, m.Unpack(all))
			assert.Equal(t, c.fits, len(m.Answer))
			tooMany := packAll(longest, many(3*c.fits, c.v6))
			require.LessOrEqual(t, len(tooMany), MaxSize)
			require.NoError(t, m.Unpack(tooMany), "targets that don't fit are left out")
			assert.Positive(t, len(m.Answer))
		})
	}
}
