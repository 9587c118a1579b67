package lbtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"lbctl/protos"
)

// Backend is a gRPC server that answers with its name. Tests register it as an instance.
type Backend struct {
	Name string
	Port int

	server *grpc.Server
	stop   sync.Once
}

// StartBackend starts a server on a free port of 127.0.0.1. It ends with the test.
func StartBackend(t testing.TB, name string) *Backend {
	t.Helper()
	return startBackend(t, name, 0)
}

// Again starts a server with the name and the port of one that has ended.
func (b *Backend) Again(t testing.TB) *Backend {
	t.Helper()
	return startBackend(t, b.Name, b.Port)
}

// StartEverywhere starts a server on one port of every loopback address. It answers
// with the address to which the call was made.
func StartEverywhere(t testing.TB) *Backend {
	t.Helper()
	return serve(t, "", "0.0.0.0:0")
}

func startBackend(t testing.TB, name string, port int) *Backend {
	t.Helper()
	return serve(t, name, fmt.Sprintf("127.0.0.1:%d", port))
}

func serve(t testing.TB, name, address string) *Backend {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{Name: name, Port: listener.Addr().(*net.TCPAddr).Port, server: grpc.NewServer()}
	protos.RegisterPingServer(b.server, &ping{name: name})
	healthpb.RegisterHealthServer(b.server, health.NewServer())
	go b.server.Serve(listener)
	t.Cleanup(b.Kill)
	return b
}

// Stop ends the server once its calls are done, as a good server does on
// SIGTERM.
func (b *Backend) Stop() { b.stop.Do(b.server.GracefulStop) }

// Kill ends the server and the calls that are in flight on it.
func (b *Backend) Kill() { b.stop.Do(b.server.Stop) }

// Registration registers the backend as an instance of service. It is passing from the
// start, and has the tag that makes the service the default for gRPC.
func (b *Backend) Registration(service string) *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID:      service + "-" + b.Name,
		Name:    service,
		Address: "127.0.0.1",
		Port:    b.Port,
		Tags:    []string{"grpc_server"},
		Check: &api.AgentServiceCheck{
			CheckID:  "alive-" + service + "-" + b.Name,
			TCP:      fmt.Sprintf("127.0.0.1:%d", b.Port),
			Interval: "1s",
			Timeout:  "1s",
			Status:   api.HealthPassing,
		},
	}
}

// Register registers the backend with an agent.
func (b *Backend) Register(t testing.TB, agent *api.Client, service string) {
	t.Helper()
	if err := agent.Agent().ServiceRegister(b.Registration(service)); err != nil {
		t.Fatalf("register %s: %v", b.Name, err)
	}
}

// Leave takes the backend out of service as the registrar does: maintenance, drain,
// stop, deregistration.
func (b *Backend) Leave(t testing.TB, agent *api.Client, service string, drain time.Duration) {
	t.Helper()
	id := service + "-" + b.Name
	if err := agent.Agent().EnableServiceMaintenance(id, "leaving"); err != nil {
		t.Errorf("maintenance of %s: %v", b.Name, err)
	}
	time.Sleep(drain) // the drain is a time by itself; there is no condition to wait for
	b.Stop()
	if err := agent.Agent().ServiceDeregister(id); err != nil {
		t.Errorf("deregister %s: %v", b.Name, err)
	}
}

type ping struct {
	protos.UnimplementedPingServer
	name string // "": answer with the address to which the call was made
}

func (p *ping) SayHello(ctx context.Context, _ *protos.PingMessage) (*protos.PingMessage, error) {
	if p.name != "" {
		return &protos.PingMessage{Greeting: p.name}, nil
	}
	caller, _ := peer.FromContext(ctx)
	host, _, err := net.SplitHostPort(caller.LocalAddr.String())
	return &protos.PingMessage{Greeting: host}, err
}

func (p *ping) Stream(stream grpc.BidiStreamingServer[protos.PingMessage, protos.PingMessage]) error {
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&protos.PingMessage{Greeting: p.name}); err != nil {
			return err
		}
	}
}
