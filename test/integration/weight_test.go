package integration

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// TestWeightZeroGetsNoTraffic puts an instance with weight 0 in warning (WEIGHT=10/0 of the
// registrar) into warning, with every nginx of this machine.
func TestWeightZeroGetsNoTraffic(t *testing.T) {
	for _, nginx := range nginxtest.Binaries(t) {
		t.Run(nginx.Version, func(t *testing.T) {
			t.Parallel() // it mostly waits
			s := alone(t, nginx)
			register := func(name, status string) {
				t.Helper()
				r := lbtest.StartBackend(t, name).Registration(hello)
				r.Weights = &api.AgentWeights{Passing: 10, Warning: 0}
				r.Check = &api.AgentServiceCheck{CheckID: name, TTL: "10m", Status: status}
				require.NoError(t, s.consul.Agent().ServiceRegister(r))
			}
			register("server-1", api.HealthPassing)
			register("server-2", api.HealthPassing)
			s.WaitServing(hello, 2)
			require.NoError(t, s.consul.Agent().UpdateTTL("server-2", "tired", api.HealthWarning))
			s.WaitServing(hello, 1)
			load := lbtest.StartLoad(t, s.GRPC, 2, pause)
			load.WaitMore(t, 200)
			result := load.Stop()
			lostNothing(t, result)
			assert.Equal(t, []string{"server-1"}, result.Names)
			out, err := s.Lbctl("services", hello)
			require.NoError(t, err)
			assert.Regexp(t, `server-2 .* warning +0 +- +no: its weight is 0, and others can serve`, out)

			require.NoError(t, s.consul.Agent().UpdateTTL("server-1", "down", api.HealthCritical))
			load = lbtest.StartLoad(t, s.GRPC, 2, pause)
			defer load.Stop()
			s.Eventually("the other one serves, because no other instance can", func() error {
				out, err := s.Lbctl("services", hello)
				if err == nil && load.First("server-2").IsZero() {
					err = fmt.Errorf("it has no call yet: %s", out)
				}
				return err
			})
			out, err = s.Lbctl("services", hello)
			require.NoError(t, err)
			assert.Regexp(t, `server-2 .* warning +0 +- +yes: its weight is 0, but no other instance can serve`, out)
		})
	}
}
