package render

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul-template/template"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
)

// BenchmarkChange measures the addition of one instance to 1,000 services with 10 instances
// each, from the parsed answer on.
func BenchmarkChange(b *testing.B) {
	settings := testSettings("1.30.6")
	byDNS(&settings)
	settings, err := settings.complete()
	require.NoError(b, err)
	set, err := loadTemplates("")
	require.NoError(b, err)
	table, err := endpoints.Open(b.TempDir()+"/endpoints.json", endpoints.Options{})
	require.NoError(b, err)
	var services []endpoints.Service
	revision := uint64(0)
	for n := range 1000 {
		s := endpoints.Service{Name: fmt.Sprintf("service-%04d", n), Spec: endpoints.Spec{Protocol: endpoints.GRPC,
			Routes: []endpoints.Route{{Path: fmt.Sprintf("/pkg.Service%d", n)}},
		}, OK: true}
		for k := range 10 {
			s.Instances = append(s.Instances, endpoints.Instance{ID: fmt.Sprintf("%s-%d", s.Name, k), Node: "node",
				Address: fmt.Sprintf("10.%d.%d.%d", n>>8, n&255, k), Port: 80, Weight: 1, Status: endpoints.Passing})
		}
		revision++
		s.Revision = revision
		services = append(services, s)
	}
	names, brain, last := newNames(), template.NewBrain(), memo{}
	var observe, render, deliver, save time.Duration
	for b.Loop() {
		t0 := time.Now()
		changed := slices.Clone(services[500].Instances)
		changed[0].Weight = 1 + changed[0].Weight%100
		revision++
		services[500].Instances, services[500].Revision = changed, revision
		entries := table.Observe(time.Now(), services)
		t1 := time.Now()
		r, _ := renderEntries(b.Context(), set, settings, entries, names, brain, &last)
		t2 := time.Now()
		r.configuration(entries, nil)
		t3 := time.Now()
		if err := table.Save(); err != nil {
			b.Fatal(err)
		}
		observe, render, deliver, save = observe+t1.Sub(t0), render+t2.Sub(t1), deliver+t3.Sub(t2), save+time.Since(t3)
	}
	for what, d := range map[string]time.Duration{"observe": observe, "render": render, "hash": deliver, "save": save} {
		b.ReportMetric(float64(d.Milliseconds())/float64(b.N), "ms-"+what)
	}
}
