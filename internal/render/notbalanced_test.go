package render

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// elsewhere registers an instance as an agent on another machine would.
func elsewhere(t *testing.T, consul *consultest.Server, instance api.AgentService) {
	t.Helper()
	_, err := consul.Client().Catalog().Register(&api.CatalogRegistration{
		Node: "elsewhere", Address: "10.9.9.9", Service: &instance,
		Check: &api.AgentCheck{Node: "elsewhere", CheckID: "check of " + instance.ID, ServiceID: instance.ID, Status: api.HealthPassing},
	}, nil)
	require.NoError(t, err)
}

func TestASidecarProxyDoesNotTakeItsParentsRoute(t *testing.T) {
	consul := consultest.Start(t)
	require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "a-web", ID: "a-web-1", Address: "127.0.0.1", Port: 7001,
		Tags: []string{"http_server"}, Meta: map[string]string{"lb-path": "/web"},
		Check:   &api.AgentServiceCheck{CheckID: "a-web-1", TTL: "1h", Status: api.HealthPassing},
		Connect: &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{}},
	}))
	// One service with gateways and normal instances, and one with gateways only.
	for n, kind := range []api.ServiceKind{api.ServiceKindTypical, api.ServiceKindConnectProxy, api.ServiceKindMeshGateway,
		api.ServiceKindTerminatingGateway, api.ServiceKindIngressGateway, api.ServiceKindAPIGateway} {
		instance := api.AgentService{
			ID: fmt.Sprintf("mixed-%d", n), Service: "mixed", Kind: kind, Address: "127.0.0.1", Port: 7010 + n,
			Tags: []string{"http_server"}, Meta: map[string]string{"lb-path": fmt.Sprintf("/mixed%d", n)},
		}
		if kind == api.ServiceKindConnectProxy {
			instance.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: "a-web"}
		}
		elsewhere(t, consul, instance)
		if kind == api.ServiceKindMeshGateway {
			instance.ID, instance.Service = "gateway-1", "gateway"
			elsewhere(t, consul, instance)
		}
	}
	services, _, err := consul.Client().Catalog().Services(nil)
	require.NoError(t, err)
	require.Contains(t, services["a-web-sidecar-proxy"], "http_server", "Consul copies the tags of its parent")

	r := run(t, consul)
	c := r.await("with both services", func(c Configuration) bool { return hasServer(c, server(7001)) && hasServer(c, server(7010)) })
	var names []string
	for _, e := range c.Entries {
		names = append(names, e.Name)
	}
	assert.Equal(t, []string{"a-web", "mixed"}, names)
	files := text(c)
	assert.NotContains(t, files, "sidecar")
	for port := 7011; port <= 7015; port++ {
		assert.False(t, hasServer(c, server(port)))
	}
	assert.Contains(t, files, "location /mixed0/")
	assert.NotContains(t, files, "location /mixed1/")
	r.awaitNoProblems()
}

func TestServicesThatAreNotBalancedAreNoProblem(t *testing.T) {
	consul := consultest.Start(t)
	elsewhere(t, consul, api.AgentService{ID: "db-1", Service: "db.internal", Port: 5432})
	elsewhere(t, consul, api.AgentService{ID: "db-2", Service: "a/../b", Port: 5432, Tags: []string{"primary"}})
	elsewhere(t, consul, api.AgentService{ID: "db-3", Service: "web", Port: 0, Meta: map[string]string{"version": "1"}})
	elsewhere(t, consul, api.AgentService{ID: "by-meta", Service: "shop.eu", Port: 80, Meta: map[string]string{"lb-protocol": "http"}})
	elsewhere(t, consul, api.AgentService{ID: "by-tag", Service: "shop/../us", Port: 80, Tags: []string{"http_server"}})
	// Consul lists this name, and answers its query with 400 and no reason.
	const strange = "web2\x1b\u202e"
	elsewhere(t, consul, api.AgentService{ID: "strange", Service: strange, Port: 80, Tags: []string{"http_server"}})
	_, _, err := consul.Client().Health().Service(strange, "", false, nil)
	require.ErrorContains(t, err, "400")
	r := run(t, consul)
	for _, name := range []string{"shop.eu", "shop/../us", strange} {
		r.awaitProblem(fmt.Sprintf("service %q", name), "it isn't balanced: its name has other characters")
	}
	consultest.Eventually(t, patience, func() (bool, string) {
		problems := r.Status().Problems // at first there is a problem with Consul too
		return len(problems) == 3, fmt.Sprint(problems)
	})
	tags, listed, known := r.Listed("a/../b")
	assert.Equal(t, []string{"primary"}, tags)
	assert.True(t, listed && known)
	_, listed, known = r.Listed("nope")
	assert.True(t, !listed && known)

	require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "unused"}))
	for _, id := range []string{"by-meta", "by-tag", "strange"} {
		_, err := consul.Client().Catalog().Deregister(&api.CatalogDeregistration{Node: "elsewhere", ServiceID: id}, nil)
		require.NoError(t, err)
	}
	r.awaitNoProblems()
}

func TestAnInstanceCantBeTheBalancerItself(t *testing.T) {
	consul := consultest.Start(t)
	own := ownAddress(t)
	refused := map[string]struct {
		address string
		port    int
		why     string
	}{
		"http":         {"127.0.0.1", 8080, "the balancer itself listens at 0.0.0.0:8080"},
		"grpc":         {"127.9.9.9", 5000, "the balancer itself listens at 0.0.0.0:5000"},
		"six":          {"::1", 8080, "the balancer itself listens at 0.0.0.0:8080"},
		"mapped":       {"::ffff:127.0.0.1", 8080, "the balancer itself listens at 0.0.0.0:8080"},
		"interface":    {own, 8080, "the balancer itself listens at 0.0.0.0:8080"},
		"name":         {"localhost", 8080, "the balancer itself listens at 0.0.0.0:8080"},
		"tcp":          {"127.0.0.1", 16379, "the balancer itself listens at 0.0.0.0:16379"},
		"tcp-by-name":  {"localhost", 16379, "the balancer itself listens at 0.0.0.0:16379"},
		"dns":          {"127.0.0.1", 9153, "the balancer itself listens at 127.0.0.1:9153"},
		"admin":        {"localhost", 9119, "the balancer itself listens at [::]:9119"},
		"metadata":     {"169.254.169.254", 80, "it is link-local, as metadata services are"},
		"metadata-six": {"fd00:ec2::254", 80, "it is a cloud's metadata service"},
		"link-local":   {"fe80::1", 80, "it is link-local, as metadata services are"},
		"mapped-link":  {"::ffff:169.254.169.254", 80, "it is link-local, as metadata services are"},
		"multicast":    {"224.0.0.1", 80, "it is a multicast or broadcast address"},
		"everywhere":   {"255.255.255.255", 80, "it is a multicast or broadcast address"},
		"compatible":   {"::169.254.169.254", 80, "it stands for 169.254.169.254, and it is link-local"},
		"nat64":        {"64:ff9b::a9fe:a9fe", 80, "it stands for 169.254.169.254, and it is link-local"},
		"nat64-local":  {"64:ff9b:1::a9fe:a9fe", 80, "it stands for 169.254.169.254, and it is link-local"},
		"nat64-48":     {"64:ff9b:1:a9fe:a9:fe00::", 80, "it stands for 169.254.169.254, and it is link-local"},
		"nat64-56":     {"64:ff9b:1:a9:fe:a9fe::", 80, "it stands for 169.254.169.254, and it is link-local"},
		"nat64-64":     {"64:ff9b:1:0:a9:fea9:fe00:0", 80, "it stands for 169.254.169.254, and it is link-local"},
		"6to4":         {"2002:a9fe:a9fe::", 80, "it stands for 169.254.169.254, and it is link-local"},
		"6to4-itself":  {"2002:7f00:1::", 8080, "it stands for 127.0.0.1, and the balancer itself listens at 0.0.0.0:8080"},
		"nat64-itself": {"64:ff9b::7f00:1", 9153, "it stands for 127.0.0.1, and the balancer itself listens at 127.0.0.1:9153"},
		"nat64-cloud":  {"64:ff9b::100.100.100.200", 80, "it stands for 100.100.100.200, and it is a cloud's metadata service"},
	}
	elsewhere(t, consul, api.AgentService{ID: "redis-1", Service: "redis", Address: "127.0.0.1", Port: 6379, Meta: map[string]string{"lb-port": "16379"}})
	for id, instance := range refused {
		elsewhere(t, consul, api.AgentService{ID: id, Service: "web-" + id, Address: instance.address, Port: instance.port,
			Meta: map[string]string{"lb-protocol": "http", "lb-path": "/" + id}})
	}
	// Other sockets of this machine are allowed.
	elsewhere(t, consul, api.AgentService{ID: "good", Service: "web-http", Address: "127.0.0.1", Port: 7001,
		Meta: map[string]string{"lb-protocol": "http", "lb-path": "/http"}})
	r := run(t, consul, func(o *Options) {
		byDNS(&o.Settings)
		o.Settings.Resolver = "127.0.0.1:9153"
		o.Settings.OwnAddresses = []string{"localhost:9119"}
	})
	for id, instance := range refused {
		p := r.awaitProblem("service web-"+id, instance.why)
		assert.True(t, strings.HasSuffix(p.Message, ": it gets no traffic"), p.Message)
		assert.Contains(t, p.Message, fmt.Sprintf("instance %q: address %q: ", id, net.JoinHostPort(instance.address, fmt.Sprint(instance.port))))
	}
	c := r.await("with the good one", func(c Configuration) bool {
		for _, targets := range c.Upstreams {
			for _, target := range targets {
				if target.Addr.String() == server(7001) {
					return true
				}
			}
		}
		return false
	})
	for name, targets := range c.Upstreams {
		for _, target := range targets {
			assert.Contains(t, []string{server(7001), server(6379)}, target.Addr.String(), name)
		}
	}
}

// ownAddress returns an address of this machine that is not a loopback address.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && !prefix.Addr().IsLoopback() && prefix.Addr().Is4() {
			return prefix.Addr().String()
		}
	}
	return "127.0.0.2"
}
