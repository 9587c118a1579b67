package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
)

// TestTheDefaultMovesFromOneServiceToAnother replaces the default service by another one,
// which has another upstream.
func TestTheDefaultMovesFromOneServiceToAnother(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, asking(t))
	all := s.backends(t, 1, 2)
	s.settled(t, 1)
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)

	const successor = "hello_successor"
	var heirs []*lbtest.Backend
	for _, name := range []string{"heir-1", "heir-2"} {
		b := lbtest.StartBackend(t, name)
		b.Register(t, s.consul, successor)
		heirs = append(heirs, b)
	}
	s.Eventually("lbctl knows the successor", func() error {
		services, err := s.Services()
		if err == nil && len(services) != 2 {
			err = fmt.Errorf("%d services", len(services))
		}
		return err
	})
	load.WaitMore(t, 100)
	for _, b := range all {
		require.NoError(t, s.consul.Agent().ServiceDeregister(hello+"-"+b.Name))
	}
	s.Eventually("the instances that still answer are held", func() error { return problem(s.Balancer, "held") })
	_, err := s.Lbctl("accept")
	require.NoError(t, err)
	for _, b := range heirs {
		s.Eventually(b.Name+" answers", func() error {
			if load.First(b.Name).IsZero() {
				return errors.New("not yet")
			}
			return nil
		})
	}
	s.WaitServing(successor, 2)
	for _, b := range all {
		b.Stop()
	}
	load.WaitMore(t, 200)
	lostNothing(t, load.Stop())
}

// TestFromReloadToDNSAndBack changes the delivery of a balancer from reload to DNS, and
// back.
func TestFromReloadToDNSAndBack(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, asking(t))
	s.backends(t, 1, 2)
	s.settled(t, 1)
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)
	for n, by := range []string{"reload", "dns"} {
		s.StopLbctl()
		s.StartLbctl("--endpoints", by)
		s.Eventually("nginx gets its servers by "+by, func() error {
			status, err := s.Status()
			if err == nil && (status.Endpoints.By != by || status.State != controller.Serving || len(status.Endpoints.Unfetched) > 0) {
				err = fmt.Errorf("by %s: %s", status.Endpoints.By, status.Summary)
			}
			return err
		})
		s.backends(t, 3+n, 3+n) // the new delivery carries changes
		load.WaitMore(t, 100)
	}
	lostNothing(t, load.Stop())
}

// TestAServiceByReloadBesideOthersByDNS has one service that is delivered by reload
// (lb-endpoints=reload), and pins the generation.
func TestAServiceByReloadBesideOthersByDNS(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, asking(t))
	s.backends(t, 1, 1)
	const written = "written"
	register := func(name string) {
		r := lbtest.StartBackend(t, name).Registration(written)
		r.Tags, r.Meta = nil, map[string]string{"lb-protocol": "grpc", "lb-path": "/written", "lb-endpoints": "reload"}
		require.NoError(t, s.consul.Agent().ServiceRegister(r))
	}
	register("written-1")
	s.WaitServing(written, 1)
	before := s.settled(t, 1)
	status, err := s.Status()
	require.NoError(t, err)
	require.Len(t, status.Endpoints.ByReload, 1)
	assert.Equal(t, written, status.Endpoints.ByReload[0].Service)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	s.backends(t, 2, 2)
	assert.Equal(t, before, s.settled(t, 1), "the others scale without a reload")
	register("written-2")
	s.WaitServing(written, 2)
	assert.Greater(t, s.settled(t, 1), before, "this one scales with a reload")

	// A pin holds files only. Delivery by DNS goes on.
	_, err = s.Lbctl("rollback")
	require.NoError(t, err)
	third := lbtest.StartBackend(t, "server-3")
	third.Register(t, s.consul, hello)
	require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-server-1", "test"))
	register("written-3")
	s.Eventually("only the new server answers, not the one in maintenance", func() error {
		if load.First("server-3").IsZero() || time.Since(load.Last("server-1")) < time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	status, err = s.Status()
	require.NoError(t, err)
	assert.Equal(t, controller.Frozen, status.State)
	assert.Equal(t, before, status.Nginx.Generation)
	_, err = s.Lbctl("resume")
	require.NoError(t, err)
	s.WaitServing(written, 3)
	lostNothing(t, load.Stop())
}

// TestCrowdsAllServe has a service with more instances than fit into a DNS answer over UDP,
// and one with more than fit into any DNS answer.
func TestCrowdsAllServe(t *testing.T) {
	for _, tt := range []struct {
		instances int
		byReload  string // words of the reason
	}{{1500, ""}, {2000, "its 2000 servers take"}} {
		t.Run(fmt.Sprint(tt.instances), func(t *testing.T) {
			s := alone(t, asking(t))
			s.crowd(t, tt.instances)
			status, err := s.Status()
			require.NoError(t, err)
			assert.Equal(t, controller.Serving, status.State, status.Summary)
			assert.Empty(t, status.Problems)
			if tt.byReload == "" {
				assert.Empty(t, status.Endpoints.ByReload)
			} else if assert.Len(t, status.Endpoints.ByReload, 1) {
				assert.Contains(t, status.Endpoints.ByReload[0].Reason, tt.byReload)
			}
			s.web(t) // other services work
		})
	}
}

// crowd registers that many instances of hello, and waits until all have answered.
func (s *system) crowd(t *testing.T, instances int) {
	t.Helper()
	port := lbtest.StartEverywhere(t).Port
	want := map[string]bool{}
	var ops api.TxnOps
	flush := func() {
		ok, resp, _, err := s.consul.Txn().Txn(ops, nil)
		require.NoError(t, err)
		require.True(t, ok, "%+v", resp)
		ops = nil
	}
	ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "crowd", Address: "127.0.0.1"}}})
	for n := range instances {
		address := fmt.Sprintf("127.9.%d.%d", n/250, 1+n%250)
		want[address] = true
		ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "crowd", Service: api.AgentService{
			ID: address, Service: hello, Address: address, Port: port, Tags: []string{"grpc_server"},
		}}})
		if len(ops) == 64 { // Consul's maximum for a transaction
			flush()
		}
	}
	if len(ops) > 0 {
		flush()
	}
	began := time.Now()
	s.WaitServing(hello, instances)
	t.Logf("served %s after the last was registered", time.Since(began).Round(time.Millisecond))
	load := lbtest.StartLoad(t, s.GRPC, 8, 0)
	s.Eventually("all have answered", func() error {
		for address := range want {
			if load.First(address).IsZero() {
				return fmt.Errorf("%s has not, after %d calls", address, load.Calls())
			}
		}
		return nil
	})
	result := load.Stop()
	t.Logf("all have answered after %d calls", result.Calls)
	lostNothing(t, result)
	assert.Len(t, result.Names, instances)
}
