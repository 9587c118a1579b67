package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// TestAnInstanceThatCantBeReachedLeavesTheRotation has a dead instance whose check in
// Consul passes for an hour.
func TestAnInstanceThatCantBeReachedLeavesTheRotation(t *testing.T) {
	s := start(t, newest(t))
	var all []*lbtest.Backend
	for _, name := range []string{"server-1", "server-2", "server-3"} {
		b := lbtest.StartBackend(t, name)
		registration := b.Registration(hello)
		registration.Check.Interval = "1h"
		registration.Meta = map[string]string{"lb-check": "grpc"}
		require.NoError(t, s.consul.Agent().ServiceRegister(registration))
		all = append(all, b)
	}
	s.WaitServing(hello, 3)

	all[0].Kill()
	killed := time.Now()
	s.Eventually("the killed server is ejected", func() error { return ejected(s.Balancer, hello+"-server-1", true) })
	t.Logf("ejected %s after it was killed", time.Since(killed).Round(time.Millisecond))
	s.WaitServing(hello, 2)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
	checks, _, err := s.consul.Health().Service(hello, "", true, &api.QueryOptions{})
	require.NoError(t, err)
	require.Len(t, checks, 3, "Consul still believes in it")

	all[0].Again(t)
	s.Eventually("it is back", func() error { return ejected(s.Balancer, hello+"-server-1", false) })
	s.WaitServing(hello, 3)
}

// ejected returns nil if the instance is ejected, or in rotation, as wanted.
func ejected(b *lbtest.Balancer, id string, want bool) error {
	services, err := b.Services()
	if err != nil {
		return err
	}
	for _, service := range services {
		for _, instance := range service.Instances {
			if instance.ID == id && instance.Ejected == want && instance.InRotation != want {
				return nil
			}
		}
	}
	return fmt.Errorf("%s is not as wanted in %+v", id, services)
}
