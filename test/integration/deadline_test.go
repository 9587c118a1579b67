package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// resetting is a gRPC server that answers with its name. It resets the stream of each call
// with the header "reset", as servers do when a call's deadline has passed.
type resetting struct {
	protos.UnimplementedPingServer
	name string
}

func (r *resetting) SayHello(context.Context, *protos.PingMessage) (*protos.PingMessage, error) {
	return &protos.PingMessage{Greeting: r.name}, nil
}

func startResetting(t *testing.T, name string) (port int) {
	t.Helper()
	server := grpc.NewServer()
	protos.RegisterPingServer(server, &resetting{name: name})
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := &http.Server{
		Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("reset") != "" {
				panic(http.ErrAbortHandler) // RST_STREAM
			}
			server.ServeHTTP(w, r)
		}),
	}
	h.Protocols.SetUnencryptedHTTP2(true)
	go h.Serve(listener)
	t.Cleanup(func() { h.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// TestResetCallsCostAnInstanceNothing makes all instances of a service reset calls again
// and again. Neither nginx nor lbctl may take them out of the rotation for that.
func TestResetCallsCostAnInstanceNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t), "--probe-interval", "100ms")
	for n := 1; n <= 2; n++ {
		name := fmt.Sprintf("server-%d", n)
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: name, Name: hello, Address: "127.0.0.1", Port: startResetting(t, name), Tags: []string{"grpc_server"},
			Meta:  map[string]string{"lb-check": "grpc"},
			Check: &api.AgentServiceCheck{TTL: "10m", Status: api.HealthPassing},
		}))
	}
	s.WaitServing(hello, 2)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	client := protos.NewPingClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "reset", "1")
	for range 20 {
		for range 20 {
			_, err := client.SayHello(ctx, &protos.PingMessage{})
			require.Error(t, err)
		}
		load.WaitMore(t, 20)
	}
	result := load.Stop()
	lostNothing(t, result)
	assert.Len(t, result.Names, 2)
	for _, id := range []string{"server-1", "server-2"} {
		assert.NoError(t, ejected(s.Balancer, id, false))
	}
	assert.NotContains(t, s.Log(), "instance ejected")
}

// TestNginxAcceptsMarks turns nginx's own marks on, as an operator may.
func TestNginxAcceptsMarks(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t), "--max-fails", "1", "--fail-timeout", "1500ms")
	s.backends(t, 1, 2)
}
