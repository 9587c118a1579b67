package registration

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"lbctl/internal/consultest"
)

// offering starts a gRPC server with the services, on a port of 127.0.0.1; 0 means a free one.
// describe adds its reflection service.
func offering(t *testing.T, port int, describe func(*grpc.Server), services ...string) (stop func(), at int) {
	t.Helper()
	return offeringAt(t, fmt.Sprintf("127.0.0.1:%d", port), describe, services...)
}

func offeringAt(t *testing.T, address string, describe func(*grpc.Server), services ...string) (stop func(), at int) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	for _, name := range services {
		server.RegisterService(&grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil)}, struct{}{})
	}
	healthpb.RegisterHealthServer(server, health.NewServer())
	describe(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return server.Stop, listener.Addr().(*net.TCPAddr).Port
}

func describeV1(server *grpc.Server) { reflection.RegisterV1(server) }

// describeV1alpha has the older version of the protocol only.
func describeV1alpha(server *grpc.Server) {
	older := reflectionpb.ServerReflection_ServiceDesc
	older.ServiceName = "grpc.reflection.v1alpha.ServerReflection"
	server.RegisterService(&older, reflection.NewServerV1(reflection.ServerOptions{Services: server}))
}

// describeNever has a reflection service that never answers.
func describeNever(server *grpc.Server) {
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "grpc.reflection.v1.ServerReflection", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "ServerReflectionInfo", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error { <-stream.Context().Done(); return nil },
	}}}, struct{}{})
}

func reflecting(t *testing.T, agent *consultest.Server, port int, args ...string) *running {
	t.Helper()
	return run(t, config(t, agent, append([]string{"--check-type=grpc", "--check-interval=1s", "--tags=grpc_server", "--port", strconv.Itoa(port)}, args...)...))
}

// offered returns what the entry says of the server's gRPC services.
func offered(e *api.ServiceEntry) map[string]string {
	pairs := map[string]string{}
	for key, value := range e.Service.Meta {
		if strings.HasPrefix(key, "grpc-services") {
			pairs[key] = value
		}
	}
	return pairs
}

func TestServicesAreFoundByReflection(t *testing.T) {
	t.Parallel()
	var many []string
	for n := range 65 {
		many = append(many, fmt.Sprintf("shop.Service%02d", n))
	}
	for _, c := range []struct {
		name     string
		describe func(*grpc.Server)
		services []string
		args     []string
		want     map[string]string
		log      string
	}{
		{name: "version v1", describe: describeV1, services: []string{"shop.Stock", "shop.Cart"}, want: map[string]string{"grpc-services": "shop.Cart,shop.Stock"}, log: `"the server offers gRPC services" .*services=shop.Cart,shop.Stock`},
		{name: "version v1alpha", describe: describeV1alpha, services: []string{"shop.Cart"}, want: map[string]string{"grpc-services": "shop.Cart"}},
		{name: "only gRPC's own services", describe: describeV1, want: map[string]string{}},
		{name: "no reflection", describe: func(*grpc.Server) {}, services: []string{"shop.Cart"}, want: map[string]string{}, log: "the server has no reflection service"},
		{name: "turned off", describe: describeV1, services: []string{"shop.Cart"}, args: []string{"--reflection=off"}, want: map[string]string{}},
		{name: "routed by its host", describe: describeV1, services: []string{"shop.Cart"}, args: []string{"--meta=lb-host=a.test"}, want: map[string]string{}},
		{name: "said in its metadata", describe: describeV1, services: []string{"shop.Cart"}, args: []string{"--meta=grpc-services=a.B"}, want: map[string]string{"grpc-services": "a.B"}},
		{name: "more than lbctl takes", describe: describeV1, services: many, want: map[string]string{}, log: "65 gRPC services, want at most 64"},
		{name: "more than one value takes", describe: describeV1, services: many[:40], want: map[string]string{
			"grpc-services": strings.Join(many[:34], ","), "grpc-services-2": strings.Join(many[34:40], ","),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t)
			_, port := offering(t, 0, c.describe, c.services...)
			r := reflecting(t, agent, port, c.args...)
			r.awaitLog("msg=registered")
			assert.Equal(t, c.want, offered(awaitStatus(t, agent, "web", api.HealthPassing)))
			if c.log != "" {
				assert.Regexp(t, c.log, r.log())
			}
			assert.NotContains(t, r.log(), "registered again", "it is right at once")
		})
	}
}

// A server may listen at one address only, which its check says, and which the agent's node has.
func TestTheServerIsAskedWhereItsCheckAsks(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	_, port := offeringAt(t, "127.0.7.1:0", describeV1, "shop.Cart")
	r := reflecting(t, agent, port, "--check-endpoint", fmt.Sprintf("127.0.7.1:%d", port))
	r.awaitLog("msg=registered")
	assert.Equal(t, map[string]string{"grpc-services": "shop.Cart"}, offered(awaitStatus(t, agent, "web", api.HealthPassing)))
}

func TestHostOfACheck(t *testing.T) {
	for endpoint, want := range map[string]string{
		"10.0.0.1:7777": "10.0.0.1", "10.0.0.1:7777/shop.Cart": "10.0.0.1", "[fd00::1]:7777": "fd00::1",
		"http://10.0.0.1:7777/health": "10.0.0.1", "10.0.0.1:7778": "", "": "", "/health": "", ":7777": "",
	} {
		host, ok := Check{Endpoint: endpoint}.hostAt(7777)
		if !ok {
			host = ""
		}
		assert.Equal(t, want, host, endpoint)
	}
}

func TestReflectionThatHangsDelaysNothingElse(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	_, port := offering(t, 0, describeNever, "shop.Cart")
	started := time.Now()
	r := reflecting(t, agent, port, "--check-timeout=1s")
	r.awaitLog("msg=registered")
	assert.Less(t, time.Since(started), 10*time.Second)
	awaitStatus(t, agent, "web", api.HealthPassing)
	// The comparison goes on while a question waits.
	require.NoError(t, agent.Client().Agent().ServiceDeregister("web-1"))
	r.awaitLog("registered again")
	assert.NoError(t, r.stop())
}

func TestRegistrationFollowsTheServersServices(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	stop, port := offering(t, 0, describeV1, "shop.Cart")
	r := reflecting(t, agent, port)
	awaits := func(want map[string]string) {
		t.Helper()
		consultest.Eventually(t, 2*patience, func() (bool, string) {
			e, err := entry(agent, "web")
			if err != nil || e == nil {
				return false, fmt.Sprint("no entry: ", err)
			}
			return assert.ObjectsAreEqual(want, offered(e)), fmt.Sprint("it offers ", offered(e))
		})
	}
	awaits(map[string]string{"grpc-services": "shop.Cart"})
	stop()
	stop, _ = offering(t, port, describeV1, "shop.Cart", "shop.Stock")
	awaits(map[string]string{"grpc-services": "shop.Cart,shop.Stock"})
	r.awaitLog(`reason="the server offers other gRPC services"`)
	stop()
	offering(t, port, func(*grpc.Server) {}, "shop.Cart")
	awaits(map[string]string{})
}
