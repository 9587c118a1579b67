package render

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul-template/template"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/resolver"
)

// byDNS makes nginx ask for servers.
func byDNS(s *Settings) {
	s.Resolver = "127.0.0.1:9153"
	s.BootstrapDir = "/var/lib/lbctl/seeds/now"
}

func TestScalingChangesNoFile(t *testing.T) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	render := func(instances ...endpoints.Instance) Configuration {
		t.Helper()
		service := endpoints.Service{Name: "hello", Spec: endpoints.Spec{Protocol: endpoints.GRPC, Default: true}, OK: true, Instances: instances}
		c, err := Offline(Options{Settings: settings}, []endpoints.Service{service})
		require.NoError(t, err)
		return c
	}
	instance := func(address string, weight int, status endpoints.Status) endpoints.Instance {
		return endpoints.Instance{ID: address, Node: "n", Address: address, Port: 80, Weight: weight, Status: status}
	}
	one := render(instance("10.0.0.1", 1, endpoints.Passing))
	assert.Len(t, one.Upstreams["grpc-hello"], 1)
	for name, other := range map[string]Configuration{
		"another instance": render(instance("10.0.0.1", 1, endpoints.Passing), instance("10.0.0.2", 7, endpoints.Passing)),
		"none in rotation": render(instance("10.0.0.1", 1, endpoints.Maintenance)),
	} {
		assert.Equal(t, one.Hash, other.Hash, name)
		assert.NotEqual(t, one.Upstreams, other.Upstreams, name)
	}
	assert.NotEqual(t, one.Hash, render(instance("fd00::1", 1, endpoints.Passing)).Hash, "nginx has to ask for IPv6 addresses too")
}

func TestServersThatDNSCantCarryAreWrittenIntoFiles(t *testing.T) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	tests := []struct {
		name     string
		services []endpoints.Service
		want     map[string]string
	}{
		{"a plain service", parseAll(
			registration("a", "a-1", "10.0.0.1", 80, tags("grpc_server"), meta("lb-max-conns", "5")),
			registration("a", "a-2", "10.0.0.2", 80, tags("grpc_server"), meta("lb-max-conns", "5")),
		), map[string]string{}},
		{"different lb-max-conns", parseAll(
			registration("a", "a-1", "10.0.0.1", 80, tags("grpc_server"), meta("lb-max-conns", "5")),
			registration("a", "a-2", "10.0.0.2", 80, tags("grpc_server")),
			registration("b", "b-1", "10.0.0.3", 80, tags("http_server")),
		), map[string]string{"a": `its instances have different lb-max-conns: "a-1" has 5, "a-2" 0`}},
		{"lb-endpoints", parseAll(
			registration("a", "a-1", "10.0.0.1", 80, tags("grpc_server"), meta("lb-endpoints", "reload")),
		), map[string]string{"a": `its lb-endpoints says "reload"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Offline(Options{Settings: settings}, tt.services)
			require.NoError(t, err)
			assert.Equal(t, tt.want, c.ByReload)
			assert.Len(t, c.Upstreams, len(tt.services)-len(tt.want))
		})
	}
}

func TestZonesGrowInSteps(t *testing.T) {
	steps := map[int]int{}
	for peak := range 1000 {
		steps[resolveZoneKiB(peak, endpoints.GRPC)]++
	}
	assert.Equal(t, map[int]int{192: 49, 320: 48, 576: 96, 1088: 192, 2112: 384, 4160: 231}, steps)
	assert.Greater(t, resolveZoneKiB(10, endpoints.HTTPS), resolveZoneKiB(10, endpoints.HTTP), "TLS sessions take room")
}

func TestPeakStays(t *testing.T) {
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	service := endpoints.Service{Name: "a", Spec: endpoints.Spec{Protocol: endpoints.GRPC, Default: true}, OK: true}
	for n := range 3 {
		service.Instances = append(service.Instances, endpoints.Instance{ID: string(rune('a' + n)), Status: endpoints.Critical})
	}
	table.Observe(time.Now(), []endpoints.Service{service})
	service.Instances = service.Instances[:1]
	assert.Equal(t, 3, table.Observe(time.Now(), []endpoints.Service{service})[0].Peak)
}

// TestTooManyServersForAnAnswerAreWrittenIntoFiles scales a service beyond the limit of a
// DNS answer, and back. Between the two limits its delivery does not change.
func TestTooManyServersForAnAnswerAreWrittenIntoFiles(t *testing.T) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	set, err := loadTemplates("")
	require.NoError(t, err)
	service := func(name, path string, instances int) endpoints.Entry {
		e := endpoints.Entry{State: endpoints.Fresh}
		e.Service = endpoints.Service{Name: name, Spec: endpoints.Spec{Protocol: endpoints.HTTP, Routes: []endpoints.Route{{Path: path}}}, OK: true}
		for n := range instances {
			address := fmt.Sprintf("10.0.%d.%d", n/250, n%250)
			e.Instances = append(e.Instances, endpoints.Instance{ID: address, Node: "n", Address: address, Port: 80, Weight: 1, Status: endpoints.Passing})
		}
		return e
	}
	most := 0
	for targets := []resolver.Target(nil); resolver.Fits(targets); most++ {
		targets = append(targets, resolver.Target{Addr: netip.MustParseAddrPort("10.0.0.100:80"), Weight: 1})
	}
	last, brain := new(memo), template.NewBrain()
	for _, step := range []struct {
		instances int
		byReload  bool
	}{{most * 9 / 10, false}, {most * 12 / 10, true}, {most * 9 / 10, true}, {most * 7 / 10, false}, {most * 9 / 10, false}} {
		entries := []endpoints.Entry{service("crowded", "/a", step.instances), service("small", "/b", 2)}
		r, problems := renderEntries(context.Background(), set, settings, entries, testNames(), brain, last)
		require.Empty(t, r.problems)
		assert.Empty(t, problems)
		_, asked := r.delivered.upstreams["http-crowded"]
		assert.Equal(t, step.byReload, !asked, "%d instances", step.instances)
		if step.byReload {
			assert.Contains(t, r.delivered.byReload["crowded"], fmt.Sprintf("its %d servers take ", step.instances))
			assert.Len(t, r.delivered.written["http-crowded"], step.instances, "for an nginx that still asks")
		} else {
			assert.Empty(t, r.delivered.byReload)
		}
		assert.Len(t, r.delivered.upstreams["http-small"], 2, "the other service is unchanged")
	}
}

// TestACrowdedServiceStaysCrowdedOverARestart has as many instances before and after a
// restart as fit into a DNS answer, but too many for a service that was crowded.
func TestACrowdedServiceStaysCrowdedOverARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	start := func(instances int) *Source {
		table, err := endpoints.Open(path, endpoints.Options{})
		require.NoError(t, err)
		settings := testSettings("1.30.6")
		byDNS(&settings)
		s, err := New(Options{Settings: settings, Table: table})
		require.NoError(t, err)
		service := endpoints.Service{Name: "web", OK: true, Spec: endpoints.Spec{Protocol: endpoints.HTTP, Default: true}}
		for n := range instances {
			address := fmt.Sprintf("10.0.%d.%d", n/250, n%250)
			service.Instances = append(service.Instances, endpoints.Instance{ID: address, Node: "n", Address: address, Port: 80, Weight: 1, Status: endpoints.Passing})
		}
		table.Observe(time.Now(), []endpoints.Service{service})
		require.NoError(t, s.render(t.Context()))
		require.NoError(t, table.Save())
		return s
	}
	byReload := func(s *Source) bool {
		c := <-s.Updates()
		return c.ByReload["web"] != ""
	}
	assert.False(t, byReload(start(1750)), "they fit into an answer")
	assert.True(t, byReload(start(2100)))
	assert.True(t, byReload(start(1750)), "after a restart")
	assert.False(t, byReload(start(1200)))
	assert.False(t, byReload(start(1750)), "after another one")
}

// TestUpstreamsAreCollectedWhileRendering has services with values that look like an
// upstream's host name. They must not count.
func TestUpstreamsAreCollectedWhileRendering(t *testing.T) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	c, err := Offline(Options{Settings: settings}, parseAll(
		registration("a", "a-1", "10.0.0.1", 80, tags("http_server"), meta("lb-host", "nobody.u.lbctl.internal.example")),
		registration("b", "b-1", "10.0.0.2", 80, tags("http_server"), meta("lb-path", "/server_x.u.lbctl.internal")),
		registration("c", "c-1", "10.0.0.3", 80, tags("http_server"), meta("lb-path", "/c"), meta("lb-endpoints", "reload")),
	))
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"http-a", "http-b"}, slices.Collect(maps.Keys(c.Upstreams)))
	assert.ElementsMatch(t, []string{"http-c"}, slices.Collect(maps.Keys(c.Written)))
}
