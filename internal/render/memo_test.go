package render

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul-template/template"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/endpoints/endpointstest"
)

// TestTemplatesAreExecutedWhenTheirInputChanges renders twice with the same memo, and
// compares the result with a rendering without one.
func TestTemplatesAreExecutedWhenTheirInputChanges(t *testing.T) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	settings, err := settings.complete()
	require.NoError(t, err)
	service := func(path string, instances ...string) endpoints.Entry {
		e := endpoints.Entry{Service: endpoints.Service{Name: "a", Spec: endpoints.Spec{Protocol: endpoints.HTTP, Routes: []endpoints.Route{{Path: path}}}, OK: true}}
		for _, address := range instances {
			e.Instances = append(e.Instances, endpoints.Instance{ID: address, Address: address, Port: 80, Weight: 1, Status: endpoints.Passing})
		}
		return e
	}
	for _, tt := range []struct {
		name          string
		own           string // an operator's own template
		before, after endpoints.Entry
		again         bool // the templates are executed again
	}{
		{"another instance", "", service("/a", "10.0.0.1"), service("/a", "10.0.0.2"), false},
		{"another route", "", service("/a", "10.0.0.1"), service("/b", "10.0.0.1"), true},
		{"a template that writes servers", "{{range catalog.HTTP.Upstreams}}{{range .Servers}}# {{.Address}}\n{{end}}{{end}}", service("/a", "10.0.0.1"), service("/a", "10.0.0.2"), true},
		{"a template that reads all of a service", "{{range catalog.Services}}# {{len .Rotation}}\n{{end}}", service("/a", "10.0.0.1"), service("/a", "10.0.0.1", "10.0.0.2"), true},
		{"a template that queries Consul", "{{keyOrDefault \"a\" \"b\"}}", service("/a", "10.0.0.1"), service("/a", "10.0.0.2"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.own != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "own.conf.ctmpl"), []byte(tt.own), 0o644))
			}
			set, err := loadTemplates(dir)
			require.NoError(t, err)
			brain, last := template.NewBrain(), new(memo)
			render := func(e endpoints.Entry, with *memo) Configuration {
				r, _ := renderEntries(context.Background(), set, settings, []endpoints.Entry{e}, testNames(), brain, with)
				require.Empty(t, r.problems)
				return r.configuration([]endpoints.Entry{e}, nil)
			}
			render(tt.before, last)
			c, _ := newCatalog([]endpoints.Entry{tt.after}, settings, testNames().addresses, nil, nil)
			assert.Equal(t, tt.again, !last.fits(set, c))
			assert.Equal(t, render(tt.after, new(memo)), render(tt.after, last))
		})
	}
}

// TestEveryFieldOfSpecReachesTheTemplates changes one field at a time. If the memo ignored a
// field, a change of it would give the old files.
func TestEveryFieldOfSpecReachesTheTemplates(t *testing.T) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	settings, err := settings.complete()
	require.NoError(t, err)
	set, err := loadTemplates("")
	require.NoError(t, err)
	entry := func(spec endpoints.Spec) []endpoints.Entry {
		return []endpoints.Entry{{Service: endpoints.Service{Name: "a", Spec: spec, OK: true, Instances: []endpoints.Instance{
			{ID: "1", Address: "10.0.0.1", Port: 80, Weight: 1, Status: endpoints.Passing},
		}}}}
	}
	full := endpointstest.Full()
	tcp := full
	tcp.Protocol, tcp.Routes = endpoints.TCP, nil
	settings.Certificates.Default = "/a.pem"
	for field, changed := range endpointstest.Changes(tcp) {
		if field == "Protocol" || field == "Default" {
			continue // stream.conf.ctmpl does not use them
		}
		t.Run("of a TCP service: "+field, func(t *testing.T) {
			last, brain := new(memo), template.NewBrain()
			renderKnown(set, settings, entry(tcp), testNames(), brain, last)
			c, _ := newCatalog(entry(changed), settings, testNames().addresses, last.layout, nil)
			assert.False(t, last.fits(set, c), "the templates are executed again")
			var specs []endpoints.Spec
			for _, s := range c.TCP {
				specs = append(specs, s.Upstream.Spec)
			}
			for _, p := range c.SharedTCP {
				specs = append(specs, p.Services[0].Upstream.Spec)
			}
			assert.Equal(t, []endpoints.Spec{changed}, specs)
		})
	}
	for field, changed := range endpointstest.Changes(full) {
		t.Run(field, func(t *testing.T) {
			last, brain := new(memo), template.NewBrain()
			renderKnown(set, settings, entry(full), testNames(), brain, last)
			same, _ := newCatalog(entry(full), settings, testNames().addresses, last.layout, nil)
			assert.True(t, last.fits(set, same))
			c, _ := newCatalog(entry(changed), settings, testNames().addresses, last.layout, nil)
			assert.False(t, last.fits(set, c), "the templates are executed again")
			require.Len(t, c.HTTP.Upstreams, 1)
			assert.Equal(t, changed, c.HTTP.Upstreams[0].Spec)
			for _, host := range c.HTTP.Hosts {
				for _, l := range host.Locations {
					if l.Service != "" {
						assert.Equal(t, changed, l.Spec)
					}
				}
			}
		})
	}
}

// TestLayoutDependsOnTheServices changes the catalog step by step, and compares each layout
// with one that is made without a predecessor.
func TestLayoutDependsOnTheServices(t *testing.T) {
	settings, err := testSettings("1.30.6").complete()
	require.NoError(t, err)
	entry := func(name string, p endpoints.Protocol, address string, routes ...endpoints.Route) endpoints.Entry {
		e := endpoints.Entry{Service: endpoints.Service{Name: name, Spec: endpoints.Spec{Protocol: p, Routes: routes, Default: len(routes) == 0}, OK: true}}
		if address != "" {
			e.Instances = []endpoints.Instance{{ID: "1", Address: address, Port: 80, Weight: 1, Status: endpoints.Passing}}
		}
		return e
	}
	route := func(host, path string) endpoints.Route { return endpoints.Route{Host: host, Path: path} }
	a := entry("a", endpoints.HTTP, "10.0.0.1", route("a.test", "/a"))
	var before *builder
	for _, step := range []struct {
		name    string
		entries []endpoints.Entry
	}{
		{"nothing", nil},
		{"a service", []endpoints.Entry{a}},
		{"no change", []endpoints.Entry{a}},
		{"another instance", []endpoints.Entry{entry("a", endpoints.HTTP, "10.0.0.2", a.Routes...)}},
		{"no instance", []endpoints.Entry{entry("a", endpoints.HTTP, "", a.Routes...)}},
		{"another path", []endpoints.Entry{entry("a", endpoints.HTTP, "10.0.0.2", route("a.test", "/b"))}},
		{"another host", []endpoints.Entry{entry("a", endpoints.HTTP, "10.0.0.2", route("b.test", "/b"))}},
		{"another protocol", []endpoints.Entry{entry("a", endpoints.GRPC, "10.0.0.2", route("b.test", "/b"))}},
		{"the default place", []endpoints.Entry{entry("a", endpoints.GRPC, "10.0.0.2")}},
		{"a service with another's route", []endpoints.Entry{a, entry("b", endpoints.HTTP, "10.0.0.3", a.Routes...)}},
		{"the conflict stays", []endpoints.Entry{a, entry("b", endpoints.HTTP, "10.0.0.3", a.Routes...)}},
		{"the conflict ends", []endpoints.Entry{a, entry("b", endpoints.HTTP, "10.0.0.3", route("", "/b"))}},
		{"another name", []endpoints.Entry{entry("c", endpoints.HTTP, "10.0.0.1", a.Routes...)}},
		{"no service again", nil},
	} {
		want, afresh := newCatalog(step.entries, settings, testNames().addresses, nil, nil)
		got, laidOut := newCatalog(step.entries, settings, testNames().addresses, before, nil)
		assert.Equal(t, want, got, step.name)
		assert.Equal(t, afresh.problems, laidOut.problems, step.name)
		before = laidOut
	}
}
