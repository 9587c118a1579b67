package consultest_test

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

func TestStart(t *testing.T) {
	server := consultest.Start(t)
	client := server.Client()
	_, err := client.KV().Put(&api.KVPair{Key: "a", Value: []byte("1")}, nil)
	require.NoError(t, err)

	server.Stop()
	server.Start()
	server.WaitReady()
	pair, _, err := client.KV().Get("a", nil)
	require.NoError(t, err)
	assert.Nil(t, pair, "a server that isn't persistent forgets")
}

func TestPersistentServerRemembers(t *testing.T) {
	server := consultest.Start(t, consultest.Persistent())
	client := server.Client()
	_, err := client.KV().Put(&api.KVPair{Key: "a", Value: []byte("1")}, nil)
	require.NoError(t, err)

	server.Kill()
	server.Start()
	server.WaitReady()
	consultest.Eventually(t, 20*time.Second, func() (bool, string) {
		pair, _, err := client.KV().Get("a", nil)
		if err != nil {
			return false, err.Error() // no leader yet
		}
		return pair != nil && string(pair.Value) == "1", "key a is not there"
	})
}

func TestACL(t *testing.T) {
	server := consultest.Start(t, consultest.ACL())
	token := server.NewToken(`service "web" { policy = "write" }`)
	config := server.Config()
	config.Token = token
	client, err := api.NewClient(config)
	require.NoError(t, err)
	require.NoError(t, client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web"}))
	require.Error(t, client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "other"}))

	// Without any token the answer is as empty but doesn't say that it was
	// filtered.
	nodes, meta, err := client.Catalog().Nodes(nil)
	require.NoError(t, err)
	assert.Empty(t, nodes)
	assert.True(t, meta.ResultsFilteredByACLs)
}

func TestCluster(t *testing.T) {
	cluster := consultest.StartCluster(t, 3)
	agent := cluster.StartClient()
	leader := cluster.Leader()
	require.GreaterOrEqual(t, leader, 0)

	cluster.StopServer(leader)
	cluster.WaitLeader()
	cluster.StartServer(leader)
	cluster.WaitLeader()

	require.NoError(t, agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 80}))
	consultest.Eventually(t, 10*time.Second, func() (bool, string) {
		services, _, err := cluster.Servers[leader].Client().Catalog().Service("web", "", nil)
		if err != nil {
			return false, err.Error()
		}
		return len(services) == 1 && services[0].Node == "client-1", "web is not in the catalog"
	})
}
