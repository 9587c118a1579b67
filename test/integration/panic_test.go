package integration

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/lbtest"
)

// TestTrafficGoesOnWhenEveryCheckFails has a check break that all instances
// share, while the instances are well.
func TestTrafficGoesOnWhenEveryCheckFails(t *testing.T) {
	s := start(t, newest(t))
	checks := []string{}
	for _, name := range []string{"server-1", "server-2"} {
		registration := lbtest.StartBackend(t, name).Registration(hello)
		registration.Check = &api.AgentServiceCheck{CheckID: "ttl-" + name, TTL: "1h", Status: api.HealthPassing}
		require.NoError(t, s.consul.Agent().ServiceRegister(registration))
		checks = append(checks, registration.Check.CheckID)
	}
	s.WaitServing(hello, 2)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)
	load.WaitMore(t, 100)
	for _, check := range checks {
		require.NoError(t, s.consul.Agent().UpdateTTL(check, "the database is away", api.HealthCritical))
	}
	s.Eventually("the service is in panic, and both are tried", func() error { return inState(s.Balancer, endpoints.Panic, 2) })
	load.WaitMore(t, 200)
	s.Eventually("status says so", func() error {
		return problem(s.Balancer, "1 service is in panic (hello_server: none of 2 instances passes its checks: all are tried)")
	})

	require.NoError(t, s.consul.Agent().UpdateTTL(checks[0], "", api.HealthPassing))
	s.Eventually("the one that passes serves alone", func() error { return inState(s.Balancer, endpoints.Fresh, 1) })
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}

// inState is nil when the only service is in the state, with so many instances
// that get traffic.
func inState(b *lbtest.Balancer, state endpoints.State, instances int) error {
	services, err := b.Services()
	if err != nil {
		return err
	}
	if len(services) != 1 || services[0].State != state || services[0].InRotation != instances {
		return fmt.Errorf("want %s with %d instances: %+v", state, instances, services)
	}
	return nil
}
