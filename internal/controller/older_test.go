package controller

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// A change of one instance must not cost more than once through all services. The number of
// allocations shows it on any machine.
func TestTheWorkOfAChangeIsProportionalToTheServices(t *testing.T) {
	for name, known := range map[string]bool{"a generation of this lbctl": true, "a generation of an older lbctl": false} {
		t.Run(name, func(t *testing.T) {
			work := func(services int) float64 {
				d := newDelivery(&fakeEndpoints{unfetched: map[string]time.Time{}}, nginx.Marks{})
				cfg := &render.Configuration{Upstreams: map[string][]resolver.Target{}}
				for n := range services {
					e := entry(fmt.Sprintf("service-%04d", n), 1)
					cfg.Entries = append(cfg.Entries, e)
					cfg.Upstreams[render.UpstreamName(e.Protocol, e.Name)] = []resolver.Target{{Addr: netip.MustParseAddrPort("10.0.0.1:7000"), Weight: 1}}
				}
				d.asked = askedIn(cfg)
				d.asked.known = known
				d.setServers(cfg, time.Time{})
				return testing.AllocsPerRun(3, func() { d.setServers(cfg, time.Time{}) })
			}
			few, many := work(100), work(1000)
			assert.Less(t, many, 20*max(few, 10), "ten times as many services, after %v allocations", few)
		})
	}
}
