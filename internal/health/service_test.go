package health

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
)

func TestServiceOf(t *testing.T) {
	const (
		passing     = endpoints.Passing
		warning     = endpoints.Warning
		critical    = endpoints.Critical
		maintenance = endpoints.Maintenance
	)
	for name, c := range map[string]struct {
		entry endpoints.Entry
		want  Service
	}{
		"all instances pass": {
			grpcService("a", "/a.A", passing, warning),
			Service{State: "fresh", Serving: true, Passing: 2, Total: 2},
		},
		"some instances pass": {
			grpcService("a", "/a.A", passing, critical, maintenance),
			Service{State: "fresh", Serving: true, Passing: 1, Total: 3},
		},
		"no instance passes, and there is no panic": {
			grpcService("a", "/a.A", critical),
			Service{State: "fresh", Total: 1, Error: "none of its instances passes its checks"},
		},
		"panic with an instance that passes": {
			with(grpcService("a", "/a.A", passing, critical), func(e *endpoints.Entry) { e.State, e.Panicking = endpoints.Panic, true }),
			Service{State: "panic", Passing: 1, Total: 2, Error: "too few of its instances pass their checks"},
		},
		"lbctl's probe has ejected one, and keeps the other because it is the last": {
			with(grpcService("a", "/a.A", passing, passing), func(e *endpoints.Entry) {
				e.Ejections = []endpoints.Ejection{{Node: "node", ID: "a-1", By: endpoints.ByProbe}, {Node: "node", ID: "a-2", By: endpoints.ByProbe, Kept: true}}
			}),
			Service{State: "fresh", Total: 2, Error: "none of its instances passes its checks"},
		},
		"nginx has no address of an instance": {
			with(grpcService("a", "/a.A", passing, passing), func(e *endpoints.Entry) {
				e.Unusable = []endpoints.Unusable{{Node: "node", ID: "a-1", Reason: "its address can't be resolved"}}
			}),
			Service{State: "fresh", Serving: true, Passing: 1, Total: 2},
		},
		"held instances count": {
			with(grpcService("a", "/a.A"), func(e *endpoints.Entry) {
				e.State, e.Held = endpoints.Held, grpcService("a", "", passing, passing).Instances
			}),
			Service{State: "held", Serving: true, Passing: 2, Total: 2},
		},
		"Consul does not answer": {
			with(grpcService("a", "/a.A", passing), func(e *endpoints.Entry) { e.State = endpoints.Stale }),
			Service{State: "stale", Serving: true, Passing: 1, Total: 1},
		},
		"Consul has not answered for longer than --max-stale": {
			with(grpcService("a", "/a.A", passing), func(e *endpoints.Entry) { e.State, e.Expired = endpoints.Stale, true }),
			Service{State: "stale", Total: 1, Error: "Consul has not confirmed it for too long"},
		},
		"quarantined with its last good state": {
			with(grpcService("a", "/a.A", passing), func(e *endpoints.Entry) { e.State, e.Refused = endpoints.Quarantined, true }),
			Service{State: "quarantined", Serving: true, Passing: 1, Total: 1},
		},
		"quarantined without a good state": {
			with(grpcService("a", "/a.A", passing), func(e *endpoints.Entry) { e.State, e.Spec = endpoints.Quarantined, endpoints.Spec{} }),
			Service{State: "quarantined", Total: 1, Error: "its settings can't be used, and there are no earlier ones"},
		},
		"without a route": {
			with(grpcService("a", "/a.A", passing), func(e *endpoints.Entry) { e.Routes = nil }),
			Service{State: "fresh", Total: 1, Error: "no route leads to it"},
		},
		"without an instance": {
			grpcService("a", "/a.A"),
			Service{State: "fresh", Error: "it has no instance"},
		},
		"in maintenance by the operator's policy": {
			with(grpcService("a", "/a.A", passing), inPolicy("maintenance.enabled", "on")),
			Service{State: "fresh", Maintenance: true, Passing: 1, Total: 1, Error: "it is in maintenance"},
		},
		"all instances in maintenance": {
			grpcService("a", "/a.A", maintenance, maintenance),
			Service{State: "fresh", Maintenance: true, Total: 2, Error: "it is in maintenance"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, serviceOf(c.entry, controller.Pinned{}))
		})
	}
}
