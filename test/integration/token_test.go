package integration

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
)

// TestARevokedTokenEmptiesNothing deletes the token: from then on Consul answers
// everything with 403.
func TestARevokedTokenEmptiesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	server := consultest.Start(t, consultest.ACL())
	const rules = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } key_prefix "lb/" { policy = "read" }`
	token := server.NewToken(rules)
	b := lbtest.Start(t, lbtest.Options{Consul: server.Addr, Token: token, Nginx: newest(t)})
	s := &system{Balancer: b, agent: server, consul: server.Client()}
	s.backends(t, 1, 2)
	load := lbtest.StartLoad(t, b.GRPC, 2, pause)

	self, _, err := s.consul.ACL().TokenReadSelf(&api.QueryOptions{Token: token})
	require.NoError(t, err)
	_, err = s.consul.ACL().TokenDelete(self.AccessorID, nil)
	require.NoError(t, err)
	unserved := lbtest.StartBackend(t, "server-3")
	unserved.Register(t, s.consul, hello)
	revoked := func() error {
		services, err := b.Services()
		if err != nil {
			return err
		}
		if len(services) != 1 || services[0].InRotation != 2 {
			return fmt.Errorf("what was served has not stayed: %+v", services)
		}
		return problem(b, "ACL not found")
	}
	s.Eventually("status says that the token is gone", revoked)
	load.WaitMore(t, 100)

	// The same must hold after a restart, when lbctl knows only what is on disk.
	lostNothing(t, load.Stop())
	s.StopLbctl()
	s.Nginx().Stop()
	s.StartLbctl()
	s.StartNginx()
	load = lbtest.StartLoad(t, b.GRPC, 2, pause)
	s.Eventually("status says that the token is gone", revoked)
	load.WaitMore(t, 100)

	s.StopLbctl()
	s.SetToken(server.NewToken(rules))
	s.StartLbctl()
	s.WaitServing(hello, 3)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}
