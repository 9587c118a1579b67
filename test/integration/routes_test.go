package integration

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"lbctl/internal/registration"
	"lbctl/protos"
)

// offering starts a gRPC server that offers one service, answers all its methods with the name of
// that service, and is registered by a registrar without any routes.
func (s *system) offering(t *testing.T, service, grpcService string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(protos.PingMessage)); err != nil {
			return err
		}
		return stream.SendMsg(&protos.PingMessage{Greeting: grpcService})
	}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	reflection.Register(offers{server, grpcService})
	go server.Serve(listener)
	t.Cleanup(server.Stop)

	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	registration.AddFlags(flags)
	require.NoError(t, flags.Parse([]string{
		"--name", service, "--port", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port), "--tags", "grpc_server",
		"--consul-addr", s.agent.Addr, "--drain", "0s",
	}))
	cfg, err := registration.Parse(flags, func(string) string { return "" })
	require.NoError(t, err)
	registrar, err := registration.New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- registrar.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
}

// offers is a gRPC server that describes one more service than it has.
type offers struct {
	*grpc.Server
	more string
}

func (o offers) GetServiceInfo() map[string]grpc.ServiceInfo {
	all := o.Server.GetServiceInfo()
	all[o.more] = grpc.ServiceInfo{}
	return all
}

// TestGRPCServicesNeedNoConfiguration registers two gRPC services with nothing but the tag.
func TestGRPCServicesNeedNoConfiguration(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t))
	s.offering(t, "ping", "protos.Ping")
	s.WaitServing("ping", 1)
	s.offering(t, "cart", "shop.Cart")
	s.WaitServing("cart", 1)

	conn, err := grpc.NewClient("passthrough:///"+s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	for _, service := range []string{"protos.Ping", "shop.Cart"} {
		s.Eventually("calls of "+service, func() error {
			var answer protos.PingMessage
			if err := conn.Invoke(t.Context(), "/"+service+"/Method", &protos.PingMessage{}, &answer); err != nil {
				return err
			}
			if answer.Greeting != service {
				return fmt.Errorf("%s answers", answer.Greeting)
			}
			return nil
		})
	}
	answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err, "the first service is the default")
	assert.Equal(t, healthpb.HealthCheckResponse_SERVING, answer.Status)

	all, err := s.Services()
	require.NoError(t, err)
	for _, service := range all {
		assert.Empty(t, service.Problems, service.Name)
		assert.Equal(t, service.Name == "ping", service.Default, service.Name)
	}

	routes, err := s.Lbctl("routes")
	require.NoError(t, err)
	assert.Regexp(t, `\*/protos\.Ping +ping\n +\*/shop\.Cart +cart\n +\* \(default\) +ping`, routes)
	for url, want := range map[string]string{
		"grpc://localhost/shop.Cart/Add":                "POST /shop.Cart/Add is for cart\n",
		"grpc://" + s.GRPC + "/protos.Ping/SayHello":    "POST /protos.Ping/SayHello is for ping\n",
		"grpc://localhost/grpc.health.v1.Health/Check?": "POST /grpc.health.v1.Health/Check is for ping\n",
	} {
		out, err := s.Lbctl("explain", url)
		require.NoError(t, err, url)
		assert.Contains(t, out, want)
	}
	out, err := s.Lbctl("explain", "http://localhost/")
	assert.Error(t, err)
	assert.Contains(t, out, "404: no service is routed for this host and path")
}

// TestExplainKnowsWhoIsDenied denies a network by hand and asks about an address in it.
func TestExplainKnowsWhoIsDenied(t *testing.T) {
	t.Parallel()
	s := alone(t, newest(t))
	s.backends(t, 1, 1)
	_, err := s.Lbctl("deny", "203.0.113.0/24", "-m", "a flood")
	require.NoError(t, err)
	s.Eventually("the rule counts", func() error {
		out, err := s.Lbctl("explain", "grpc://localhost/protos.Ping/SayHello", "--from", "203.0.113.7")
		if err == nil {
			return fmt.Errorf("it is let in: %s", out)
		}
		for _, want := range []string{"203.0.113.0/24 is denied by ", ": a flood. The client gets PERMISSION_DENIED: not allowed\n"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("want %q, got %s", want, out)
			}
		}
		return nil
	})
	_, err = s.Lbctl("explain", "grpc://localhost/protos.Ping/SayHello", "--from", "203.0.114.7")
	assert.NoError(t, err)
}
