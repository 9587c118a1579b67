package health

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"lbctl/internal/endpoints"
)

func TestFind(t *testing.T) {
	c := &catalog{}
	whole := grpcService("whole", "/shop.Cart", endpoints.Passing)
	method := grpcService("method", "/shop.Cart/Add", endpoints.Passing)
	headers := with(grpcService("headers", "/shop.Cart", endpoints.Passing), func(e *endpoints.Entry) { e.Routes[0].Headers = "x-version=v2" })
	alone := grpcService("alone", "/shop.Stock/Count", endpoints.Passing)
	all := grpcService("package", "/shop.deep.*", endpoints.Passing)
	hosted := with(grpcService("hosted", "/shop.Cart", endpoints.Passing), func(e *endpoints.Entry) { e.Routes[0].Host = "*.shop.test" })
	site := with(grpcService("site", "/shop.Web", endpoints.Passing), func(e *endpoints.Entry) { e.Protocol = endpoints.HTTP })
	first := with(grpcService("first", "", endpoints.Passing), func(e *endpoints.Entry) { e.Default = true })
	c.set(alone, all, first, headers, hosted, method, site, whole)
	s := (&monitor{table: c, controller: c}).now()
	for _, x := range []struct{ name, authority, want string }{
		{"shop.Cart", "localhost:5000", "whole"},
		{"shop.Cart", "", "whole"},
		{"shop.Cart", "EU.shop.test:5000", "hosted"},
		{"shop.Stock", "localhost", "alone"},
		{"shop.deep.Thing", "localhost", "package"},
		{"shop.deep", "localhost", ""},
		{"shop.Car", "localhost", ""},
		{"shop.Web", "localhost", ""},
		{"", "localhost", ""},
		{"first", "localhost", ""}, // no gRPC service: find knows Consul's names
	} {
		assert.Equal(t, x.want, s.routed(x.name, x.authority), "%s at %s", x.name, x.authority)
	}
	for name, want := range map[string]bool{"first": true, "site": true, "shop.Cart": true, "shop.Car": false, "": false} {
		_, found := s.find(name, "localhost")
		assert.Equal(t, want, found, name)
	}
}

func TestNowIsTheSameUntilSomethingChanges(t *testing.T) {
	c := &catalog{}
	m := &monitor{table: c, controller: c}
	unknown := m.now()
	assert.False(t, unknown.known)
	c.set()
	empty := m.now()
	assert.True(t, empty.known)
	assert.True(t, empty.well)
	c.set(grpcService("a", "/a.A", endpoints.Critical))
	first := m.now()
	assert.Same(t, first, m.now())
	assert.False(t, first.well)
	c.set(grpcService("a", "/a.A", endpoints.Passing))
	assert.NotSame(t, first, m.now())
	assert.True(t, m.now().well)
}

func TestHiddenServices(t *testing.T) {
	c := &catalog{}
	m := &monitor{table: c, controller: c}
	shown := grpcService("shown", "/a.Shown", endpoints.Passing)
	hidden := with(grpcService("hidden", "/a.Hidden", endpoints.Critical), inPolicy("health.report", "off"))
	broken := endpoints.Entry{Service: endpoints.Service{Name: "broken"}, State: endpoints.Quarantined}
	names := func(s *snapshot) []string { return slices.Sorted(maps.Keys(s.services)) }

	c.set(broken, shown)
	assert.Equal(t, []string{"broken", "shown"}, names(m.now()))
	assert.False(t, m.now().well)
	c.set(broken, hidden, shown)
	assert.Equal(t, []string{"shown"}, names(m.now()), "the policy of the broken one is not known")
	assert.True(t, m.now().well)
	assert.Equal(t, unknown, m.now().status("hidden", ""))
	assert.Equal(t, unknown, m.now().status("a.Hidden", ""))
	assert.Equal(t, serving, m.now().status("", ""))

	c.set(broken, hidden)
	assert.Empty(t, names(m.now()))
	assert.Equal(t, unknown, m.now().status("", ""))
	p := &prober{}
	status, answer := ask(newReporter(m, p), "GET", "")
	assert.Equal(t, 404, status)
	assert.JSONEq(t, `"no service is told of: health.report is off in their policies"`, string(answer["error"]))
	assert.Zero(t, p.once.Load())
	server := newHealthServer(m, stays)
	_, err := server.Check(t.Context(), &healthpb.HealthCheckRequest{})
	assert.EqualError(t, err, "rpc error: code = NotFound desc = lbctl: no service is told of: health.report is off in their policies")
	list, err := server.List(t.Context(), nil)
	assert.NoError(t, err)
	assert.Empty(t, list.Statuses)
}
