package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestTrafficGoesOnWhileConsulIsAway(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := start(t, nginx)
		s.backends(t, 1, 2)
		load := lbtest.StartLoad(t, s.GRPC, 2, pause)

		for i := range 3 {
			s.cluster.StopServer(i)
		}
		away := time.Now()
		s.Eventually("lbctl says that Consul has no leader", func() error { return saysConsulIsAway(s.Balancer) })
		load.WaitMore(t, 100)
		lostNothing(t, load.Stop())

		// The whole balancer starts again, with Consul still away.
		s.StopLbctl()
		s.Nginx().Stop()
		s.StartLbctl()
		s.StartNginx()
		load = lbtest.StartLoad(t, s.GRPC, 2, pause)
		load.WaitMore(t, 100)
		// The outage is a time by itself: long enough for lbctl to do everything that it
		// does without an answer.
		time.Sleep(time.Until(away.Add(lbtest.Outage(t, 15*time.Second))))
		services, err := s.Services()
		require.NoError(t, err)
		require.Len(t, services, 1)
		assert.Equal(t, 2, services[0].InRotation, "all instances are still served")
		status, err := s.Status()
		require.NoError(t, err)
		assert.Equal(t, 2, status.Instances)
		s.Eventually("lbctl says that Consul has no leader", func() error { return saysConsulIsAway(s.Balancer) })

		for i := range 3 {
			s.cluster.StartServer(i)
		}
		s.cluster.WaitLeader()
		lbtest.Eventually(t, "the agent is back", func() error {
			_, _, err := s.consul.Catalog().Services(nil)
			return err
		})
		back := time.Now()
		s.backends(t, 3, 3)
		t.Logf("a change was served %s after Consul was back", time.Since(back).Round(time.Millisecond))
		lostNothing(t, load.Stop())
	})
}

func saysConsulIsAway(b *lbtest.Balancer) error {
	status, err := b.Status()
	if err != nil {
		return err
	}
	if status.Consul.Reachable && status.Consul.Leader != "" {
		return fmt.Errorf("consul is %+v", status.Consul)
	}
	if !strings.Contains(status.Summary, "Consul") || strings.Contains(status.Summary, "\n") {
		return fmt.Errorf("summary %q, want one line that names Consul", status.Summary)
	}
	return nil
}

func TestAWeakTokenEmptiesNothing(t *testing.T) {
	server := consultest.Start(t, consultest.ACL())
	strong := server.NewToken(`service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } key_prefix "lb/" { policy = "read" }`)
	b := lbtest.Start(t, lbtest.Options{Consul: server.Addr, Token: strong, Nginx: newest(t)})
	s := &system{Balancer: b, agent: server, consul: server.Client()}
	s.backends(t, 1, 2)
	load := lbtest.StartLoad(t, b.GRPC, 2, pause)

	// The token's policy is taken away: Consul answers 200 and an empty list.
	policies, _, err := s.consul.ACL().PolicyList(nil)
	require.NoError(t, err)
	for _, p := range policies {
		if p.Name != "global-management" && p.Name != "builtin/global-read-only" {
			full, _, err := s.consul.ACL().PolicyRead(p.ID, nil)
			require.NoError(t, err)
			full.Rules = `agent_prefix "" { policy = "read" }`
			_, _, err = s.consul.ACL().PolicyUpdate(full, nil)
			require.NoError(t, err)
		}
	}
	s.Eventually("status says why the endpoints are held", func() error {
		return problem(s.Balancer, "token")
	})
	load.WaitMore(t, 100)
	s.StopLbctl()
	s.StartLbctl() // a new lbctl must not trust the empty list either
	s.Eventually("status says why the endpoints are held", func() error {
		return problem(s.Balancer, "token")
	})
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}

func TestAWipedCatalogEmptiesNothing(t *testing.T) {
	// Register in the catalog itself, so that no agent restores the instances.
	server := consultest.Start(t)
	b := lbtest.Start(t, lbtest.Options{Consul: server.Addr, Nginx: newest(t)})
	s := &system{Balancer: b, agent: server, consul: server.Client()}
	for i := 1; i <= 4; i++ {
		backend := lbtest.StartBackend(t, fmt.Sprintf("server-%d", i))
		_, err := s.consul.Catalog().Register(&api.CatalogRegistration{
			Node: "node-" + backend.Name, Address: "127.0.0.1",
			Service: &api.AgentService{ID: backend.Name, Service: hello, Port: backend.Port, Tags: []string{"grpc_server"}},
		}, nil)
		require.NoError(t, err)
	}
	s.WaitServing(hello, 4)
	load := lbtest.StartLoad(t, b.GRPC, 2, pause)

	for i := 1; i <= 4; i++ {
		_, err := s.consul.Catalog().Deregister(&api.CatalogDeregistration{Node: fmt.Sprintf("node-server-%d", i)}, nil)
		require.NoError(t, err)
	}
	s.Eventually("status says that instances are held", func() error { return problem(b, "vanished") })
	load.WaitMore(t, 200)
	lostNothing(t, load.Stop())

	// The operator says that they are gone for good.
	_, err := b.Lbctl("accept")
	require.NoError(t, err)
	s.Eventually("nothing is served any more", func() error {
		services, err := b.Services()
		if err == nil && len(services) > 0 {
			err = fmt.Errorf("%+v", services)
		}
		return err
	})
}

// problem returns nil when the status shows a problem that contains the word.
func problem(b *lbtest.Balancer, word string) error {
	status, err := b.Status()
	if err != nil {
		return err
	}
	if status.State == controller.Serving && len(status.Problems) == 0 {
		return fmt.Errorf("state %q, no problems: %s", status.State, status.Summary)
	}
	text := status.Summary
	for _, p := range status.Problems {
		if strings.Contains(p.Message, "\n") {
			return fmt.Errorf("problem %q: want one line", p.Message)
		}
		text += "\n" + p.Subject + ": " + p.Message
	}
	if !strings.Contains(text, word) {
		return fmt.Errorf("status says %q, want something about %q", text, word)
	}
	return nil
}

func TestOneOrTwoConsulServersStop(t *testing.T) {
	s := start(t, newest(t))
	s.backends(t, 1, 1)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	s.cluster.StopServer(s.cluster.Leader())
	s.cluster.WaitLeader()
	more := lbtest.StartBackend(t, "server-2")
	s.Eventually("the agent takes a registration", func() error {
		return s.consul.Agent().ServiceRegister(more.Registration(hello))
	})
	s.WaitServing(hello, 2)

	s.cluster.StopServer(s.cluster.Leader())
	s.Eventually("lbctl says that there is no leader", func() error { return saysConsulIsAway(s.Balancer) })
	load.WaitMore(t, 100)
	assert.Len(t, load.Stop().Names, 2)
}

// TestABalancerThatStartsWithoutConsulGivesNginxTheSnapshot tests delivery by DNS:
// lbctl answers nginx only when Consul has answered or has had enough time to.
func TestABalancerThatStartsWithoutConsulGivesNginxTheSnapshot(t *testing.T) {
	s := start(t, asking(t))
	all := s.backends(t, 1, 3)
	s.settled(t, 1)
	s.agent.Kill()
	s.StopLbctl()
	s.Nginx().Stop()
	s.StartLbctl()
	s.StartNginx()
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)
	s.settledWithoutConsul(t, 2)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())

	// lbctl probes instances without Consul too, and delivers a change of the rotation.
	all[0].Kill()
	s.Eventually("the one that can't be reached is out", func() error {
		services, err := s.Services()
		if err != nil {
			return err
		}
		if services[0].InRotation != 2 {
			return fmt.Errorf("%d in rotation: %s", services[0].InRotation, services[0].Reason)
		}
		return nil
	})
	more := lbtest.StartLoad(t, s.GRPC, 2, pause)
	more.WaitMore(t, 100)
	lostNothing(t, more.Stop())
}
