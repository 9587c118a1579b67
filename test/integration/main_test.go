// Package integration tests a whole load balancer as processes: three Consul
// servers, an agent, lbctl and nginx, with gRPC servers as instances, and callers whose
// calls must not fail.
package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	lbtest.RemoveBinary()
	os.Exit(code)
}

// system is a balancer on Consul, with instances of one service.
type system struct {
	*lbtest.Balancer
	cluster *consultest.Cluster
	agent   *consultest.Server
	consul  *api.Client
}

const hello = "hello_server"

func start(t *testing.T, nginx nginxtest.Binary, args ...string) *system {
	t.Helper()
	cluster := consultest.StartCluster(t, 3)
	agent := cluster.StartClient()
	return &system{
		Balancer: lbtest.Start(t, lbtest.Options{Consul: agent.Addr, Nginx: nginx, Args: args}),
		cluster:  cluster,
		agent:    agent,
		consul:   agent.Client(),
	}
}

// alone is start with a single Consul server, for tests that don't need a cluster.
func alone(t *testing.T, nginx nginxtest.Binary, args ...string) *system {
	t.Helper()
	consul := consultest.Start(t)
	return &system{
		Balancer: lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: nginx, Args: args}),
		agent:    consul,
		consul:   consul.Client(),
	}
}

// newest is the newest nginx of this machine, for tests that need only one version.
func newest(t *testing.T) nginxtest.Binary {
	t.Helper()
	all := nginxtest.Binaries(t)
	return all[len(all)-1]
}

// backends starts and registers the instances "server-FROM" to "server-TO", and waits until
// nginx serves them.
func (s *system) backends(t *testing.T, from, to int) []*lbtest.Backend {
	t.Helper()
	var all []*lbtest.Backend
	for i := from; i <= to; i++ {
		b := lbtest.StartBackend(t, fmt.Sprintf("server-%d", i))
		b.Register(t, s.consul, hello)
		all = append(all, b)
	}
	s.WaitServing(hello, to)
	return all
}

func lostNothing(t *testing.T, result lbtest.Result) {
	t.Helper()
	assert.NotZero(t, result.Calls)
	assert.Empty(t, result.Failures, "of %d calls", result.Calls)
}

const pause = 5 * time.Millisecond
