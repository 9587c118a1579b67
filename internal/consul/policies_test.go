package consul

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// TestLayersComeAndGo: whichever layers came and went before, a service has those that are there
// now.
func TestLayersComeAndGo(t *testing.T) {
	said, err := policy.ParseDocument([]byte(`{"check": "none"}`))
	require.NoError(t, err)
	const metadata, byDefault, byService = 1, 2, 4
	table, err := endpoints.Open("", endpoints.Options{})
	require.NoError(t, err)
	f := Follower{policies: policies{prefix: "lb/", answered: true, table: table}}
	s := &followed{name: "web", answered: true, service: endpoints.Service{Name: "web", OK: true, Spec: endpoints.Spec{Protocol: endpoints.HTTP}}}
	f.services = []followed{*s}
	s = &f.services[0]
	has := 0
	change := func(to int) {
		if (has^to)&metadata != 0 { // the service registers anew
			s.service.Policy = policy.Settings{}
			if to&metadata != 0 {
				s.service.Policy = policy.Resolve(policy.Metadata(said))
			}
			f.setPolicy(s)
		}
		answer := documents{prefix: "lb/"}
		for bit, key := range map[int]string{byDefault: "lb/default", byService: "lb/service/web"} {
			if to&bit != 0 {
				answer.all = append(answer.all, Document{Key: key, Index: 1, Value: []byte(fmt.Sprintf(`{"min-instances": %d}`, bit))})
			}
		}
		f.takePolicies(answer)
		var want []string
		for _, source := range []struct {
			bit  int
			name string
		}{{byDefault, "lb/default"}, {metadata, policy.SourceMetadata}, {byService, "lb/service/web"}} {
			if to&source.bit != 0 {
				want = append(want, source.name)
			}
		}
		var got []string
		for _, l := range s.service.Policy.Layers() {
			got = append(got, l.Source)
		}
		assert.Equal(t, want, got, "after %03b came %03b", has, to)
		has = to
	}
	for from := range 8 {
		for to := range 8 {
			change(from)
			change(to)
		}
	}
}
