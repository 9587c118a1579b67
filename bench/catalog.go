//go:build bench

package bench

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"

	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// instancesEach is how many instances a service of a catalog has, one a node.
const instancesEach = 10

// A catalog is many gRPC services in Consul, each with a host name of its own. Each
// instance has a loopback address of its own. All have the same port, and one server
// answers for all of them. They are registered in the catalog itself, on nodes without
// an agent, so that they cause no work for agents.
type catalog struct {
	consul   *api.Client // of a server
	port     int
	services int
}

func newCatalog(t *testing.T, consul *api.Client) *catalog {
	t.Helper()
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	protos.RegisterPingServer(server, addressPing{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	for k := range instancesEach + 1 {
		_, err := consul.Catalog().Register(&api.CatalogRegistration{Node: node(k), Address: "127.0.0.1"}, nil)
		require.NoError(t, err)
	}
	return &catalog{consul: consul, port: listener.Addr().(*net.TCPAddr).Port}
}

// addressPing answers with the address to which the call was made.
type addressPing struct{ protos.UnimplementedPingServer }

func (addressPing) SayHello(ctx context.Context, _ *protos.PingMessage) (*protos.PingMessage, error) {
	p, _ := grpcpeer.FromContext(ctx)
	return &protos.PingMessage{Greeting: p.LocalAddr.String()}, nil
}

// benchPolicy is the document of service i: what a careful operator sets. Its values differ
// between services, so that nginx can't share anything that it would not share in use.
func benchPolicy(i int) string {
	return fmt.Sprintf(`{"timeout.connect": "300ms", "timeout.read": "%ds", "timeout.send": "%ds", "retry.tries": 2, "balance.algorithm": "least_conn",`+
		` "max-conns": %d, "limit.service.rate": "%d/s", "headers.request.set": {"X-Service": "%s"}, "paths": {"/protos.Ping/Slow": {"timeout.read": "1h"}}}`,
		60+i%50, 30+i%50, 200+i%50, 1000+i%50, serviceName(i))
}

// setPolicies gives each service a policy.
func (c *catalog) setPolicies(t *testing.T) {
	t.Helper()
	const most = 64 // operations of a transaction
	for i := 0; i < c.services; i += most {
		var ops api.TxnOps
		for n := i; n < min(i+most, c.services); n++ {
			ops = append(ops, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "lb/service/" + serviceName(n), Value: []byte(benchPolicy(n))}})
		}
		ok, response, _, err := c.consul.Txn().Txn(ops, nil)
		require.NoError(t, err)
		require.True(t, ok, "write policies: %v", response.Errors)
	}
}

func (c *catalog) removePolicies(t *testing.T) {
	t.Helper()
	_, err := c.consul.KV().DeleteTree("lb/", nil)
	require.NoError(t, err)
}

// grow registers services until there are n of them.
func (c *catalog) grow(t *testing.T, n int) {
	t.Helper()
	const most = 64 // operations of a transaction
	var ops api.TxnOps
	commit := func() {
		ok, response, _, err := c.consul.Txn().Txn(ops, nil)
		require.NoError(t, err)
		require.True(t, ok, "register services: %v", response.Errors)
		ops = nil
	}
	for ; c.services < n; c.services++ {
		for k := range instancesEach {
			ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node(k), Service: c.instance(c.services, k)}})
			if len(ops) == most {
				commit()
			}
		}
	}
	if len(ops) > 0 {
		commit()
	}
}

// add registers one more instance of service i, and returns its address.
func (c *catalog) add(t *testing.T, i int) string {
	t.Helper()
	extra := c.instance(i, instancesEach)
	_, err := c.consul.Catalog().Register(&api.CatalogRegistration{
		Node: node(instancesEach), Address: "127.0.0.1", SkipNodeUpdate: true, Service: &extra,
	}, nil)
	require.NoError(t, err)
	return fmt.Sprintf("%s:%d", extra.Address, extra.Port)
}

// remove deregisters the instance that add registered.
func (c *catalog) remove(t *testing.T, i int) {
	t.Helper()
	_, err := c.consul.Catalog().Deregister(&api.CatalogDeregistration{
		Node: node(instancesEach), ServiceID: c.instance(i, instancesEach).ID,
	}, nil)
	require.NoError(t, err)
}

// instance is the kth instance of service i.
func (c *catalog) instance(i, k int) api.AgentService {
	return api.AgentService{
		ID:      fmt.Sprintf("%s-%d", serviceName(i), k),
		Service: serviceName(i),
		Address: fmt.Sprintf("127.%d.%d.%d", 10+i/250, i%250, k+1),
		Port:    c.port,
		Meta:    map[string]string{"lb-protocol": "grpc", "lb-host": host(i)},
	}
}

// dial makes a caller of service i through a balancer.
func (c *catalog) dial(t *testing.T, balancer string, i int) lbtest.Caller {
	t.Helper()
	caller, err := lbtest.DialGRPC(balancer, insecure.NewCredentials(), grpc.WithAuthority(host(i)))
	require.NoError(t, err)
	return caller
}

func node(k int) string        { return fmt.Sprintf("bench-%d", k) }
func serviceName(i int) string { return fmt.Sprintf("service-%04d", i) }
func host(i int) string        { return serviceName(i) + ".bench" }
