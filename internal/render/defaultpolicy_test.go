package render

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// defaults returns the layer of a policy for all services that sets timeout.read; none if it is
// empty.
func defaults(t *testing.T, timeout string) policy.Layer {
	t.Helper()
	layer := policy.Layer{Level: policy.LevelDefault, Source: "lb/default"}
	if timeout != "" {
		require.NoError(t, layer.Document.Set("timeout.read", timeout))
	}
	return layer
}

// TestTheCauseIsThePolicyForAllServices has an nginx that refuses the value 13s of timeout.read for
// gRPC services, and the version "bad" of an instance.
func TestTheCauseIsThePolicyForAllServices(t *testing.T) {
	// service is like "a 1": a name and a version, with ":http" if it is no gRPC service.
	under := func(layer policy.Layer, all ...string) (services []endpoints.Service) {
		for _, text := range all {
			text, http := strings.CutSuffix(text, ":http")
			name, version, _ := strings.Cut(text, " ")
			s := versioned(name, version)
			if http {
				s.Protocol = endpoints.HTTP
			}
			s.Policy = policy.Resolve(layer)
			services = append(services, s)
		}
		return services
	}
	const template = `{{range catalog.Services}}{{.Name}} {{.Protocol}} {{.Policy.General.Timeout.Read}} {{range .Instances}}{{.Version}}{{end}};
{{end}}`
	tests := []struct {
		name                 string
		before, after        string // the policies
		services, changed    []string
		policy               string // refused, and why
		quarantined          []string
		unfit, testIsNotMade bool
	}{
		{name: "nothing else has changed", before: "1s", after: "13s", services: []string{"a 1", "b 1"}, changed: []string{"a 1", "b 1"}, policy: "nginx -t: bad a"},
		{name: "a service has changed", before: "1s", after: "13s", services: []string{"a 1", "b 1"}, changed: []string{"a 2", "b 1"}, policy: "nginx -t: bad a"},
		{name: "a service has a fault of its own", before: "1s", after: "13s", services: []string{"a 1", "b 1"}, changed: []string{"a bad", "b 1"}, policy: "nginx -t: bad a"},
		{name: "a new service has a fault of its own", before: "1s", after: "13s", services: []string{"b 1"}, changed: []string{"a bad", "b 1"}, policy: "nginx -t: bad b"},
		{name: "there is one service", before: "1s", after: "13s", services: []string{"a 1"}, changed: []string{"a 1"}, policy: "nginx -t: bad a"},
		{name: "there was no policy", after: "13s", services: []string{"a 1", "b 1"}, changed: []string{"a 1", "b 1"}, policy: "nginx -t: bad a"},
		{name: "it is refused for one service only", before: "1s", after: "13s", services: []string{"a 1:http", "b 1"}, changed: []string{"a 1:http", "b 1"}, policy: "nginx -t: bad b"},
		{name: "it is good", before: "1s", after: "2s", services: []string{"a 1", "b 1"}, changed: []string{"a bad", "b 1"}, quarantined: []string{"a"}},
		{name: "it is good, and all services have faults", before: "1s", after: "2s", services: []string{"a 1", "b 1"}, changed: []string{"a bad", "b bad"}, quarantined: []string{"a", "b"}},
		{name: "it has not changed", before: "13s", after: "13s", services: []string{"a 1:http", "b 1:http"}, changed: []string{"a bad:http", "b 1:http"}, quarantined: []string{"a"}},
		{name: "it is bad for a new service only", before: "1s", after: "13s", services: []string{"a 1:http"}, changed: []string{"a 1:http", "b 1"}, quarantined: []string{"b"}},
		{name: "a service changes what makes it bad", before: "1s", after: "13s", services: []string{"a 1:http", "b 1:http"}, changed: []string{"a 1", "b 1:http"}, quarantined: []string{"a"}},
		{name: "it is bad when lbctl starts for the first time", after: "13s", changed: []string{"a 1", "b 1"}, policy: "nginx -t: bad a"},
		{name: "it is bad for the first service", after: "13s", changed: []string{"a 1"}, policy: "nginx -t: bad a"},
		{name: "services have faults too when lbctl starts for the first time", after: "13s", changed: []string{"a bad", "b 1", "c 1"}, quarantined: []string{"a"}},
		{name: "it is good when lbctl starts for the first time", after: "1s", changed: []string{"a bad", "b 1", "c 1"}, quarantined: []string{"a"}},
		{name: "nginx refuses everything", before: "1s", after: "13s", services: []string{"a 1", "b 1"}, changed: []string{"a 1", "b 1"}, unfit: true},
		{name: "nginx refuses everything when lbctl starts for the first time", after: "13s", changed: []string{"a 1", "b 1"}, unfit: true},
		{name: "nginx -t can't run", before: "1s", after: "13s", services: []string{"a 1", "b 1"}, changed: []string{"a 1", "b 1"}, testIsNotMade: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := source(t, template)
			before, after := defaults(t, tt.before), defaults(t, tt.after)
			s.NginxAccepted(s.says(t, under(before, tt.services...)...).Entries)
			refuses := func(_ context.Context, files map[string][]byte) (string, error) {
				if tt.testIsNotMade {
					return "", errors.New("disk full")
				}
				if tt.unfit {
					return "nginx -t: no", nil
				}
				for n, line := range strings.Split(string(files["http.d/own.conf"]), "\n") {
					if words := strings.Fields(line); len(words) > 2 && (strings.Contains(line, "grpc 13s ") || strings.HasSuffix(line, " bad;")) {
						return fmt.Sprintf("nginx -t: bad %s in http.d/own.conf:%d", words[0], n+1), nil
					}
				}
				return "", nil
			}
			changed := under(after, tt.changed...)
			c := s.says(t, changed...)
			c.defaultPolicy = consul.DefaultPolicy{Layer: after, Index: 7}
			why, _ := refuses(t.Context(), c.Files)
			if tt.testIsNotMade {
				why = "nginx -t: bad a in http.d/own.conf:1"
			}
			require.NotEmpty(t, why)
			found := s.QuarantineCulprits(t.Context(), c, why, refuses)
			if tt.policy == "" {
				assert.Equal(t, Culprits{Services: tt.quarantined, Again: len(tt.quarantined) == 0 && found.Again}, found)
			} else {
				assert.Equal(t, Culprits{Policy: "lb/default"}, found)
			}
			got, refused := s.table.DefaultPolicy(time.Now(), 7, after.Document)
			if tt.policy == "" {
				assert.Nil(t, refused)
			} else if assert.NotNil(t, refused) {
				assert.Equal(t, before.Document, got)
				assert.Equal(t, tt.policy, strings.Join(strings.Fields(refused.Why)[:4], " "))
				assert.Contains(t, refused.Why, ", in the block of service "+strings.Fields(tt.policy)[3])
			}
			var quarantined []string
			for _, e := range s.table.Observe(time.Now(), changed) {
				if e.State == endpoints.Quarantined {
					quarantined = append(quarantined, e.Name)
				}
			}
			assert.Equal(t, tt.quarantined, quarantined)
		})
	}
}
