//go:build bench

package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// A backend is an instance: a server that answers with its name, and its registration.
type backend struct {
	name         string
	registration *api.AgentServiceRegistration
	stop         func() // waits for the calls that are in flight, then ends the server
}

// stopPatience bounds how long a backend waits for its last calls.
const stopPatience = 5 * time.Second

// startGRPC starts an instance of the gRPC service.
func startGRPC(t *testing.T, name string) *backend {
	t.Helper()
	server := lbtest.StartBackend(t, name)
	b := &backend{name: name, registration: server.Registration(grpcService)}
	b.registration.Tags = append(b.registration.Tags, fabioTags(grpcPlain)...)
	b.registration.Tags = append(b.registration.Tags, traefikTags(grpcService, grpcPlain, grpcTLS)...)
	b.stop = func() {
		// GracefulStop waits for streams without a bound.
		hurry := time.AfterFunc(stopPatience, server.Kill)
		defer hurry.Stop()
		server.Stop()
	}
	return b
}

// startHTTP starts an instance of the HTTP service.
func startHTTP(t *testing.T, name string) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, name)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	port := listener.Addr().(*net.TCPAddr).Port
	b := &backend{name: name, registration: &api.AgentServiceRegistration{
		ID:      httpService + "-" + name,
		Name:    httpService,
		Address: "127.0.0.1",
		Port:    port,
		Tags:    []string{"http_server"},
		Check: &api.AgentServiceCheck{
			CheckID:  "alive-" + httpService + "-" + name,
			TCP:      fmt.Sprintf("127.0.0.1:%d", port),
			Interval: "1s",
			Timeout:  "1s",
			Status:   api.HealthPassing,
		},
	}}
	b.registration.Tags = append(b.registration.Tags, fabioTags(httpPlain)...)
	b.registration.Tags = append(b.registration.Tags, traefikTags(httpService, httpPlain, httpTLS)...)
	b.stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		server.Shutdown(ctx)
	}
	return b
}

// register registers the backend as passing, and returns when Consul has accepted it.
func (b *backend) register(consul *api.Client) error {
	if err := consul.Agent().ServiceRegister(b.registration); err != nil {
		return fmt.Errorf("register %s: %w", b.name, err)
	}
	return nil
}

// drain puts the backend into maintenance, and returns when Consul has accepted it.
func (b *backend) drain(consul *api.Client) error {
	if err := consul.Agent().EnableServiceMaintenance(b.registration.ID, "leaving"); err != nil {
		return fmt.Errorf("maintenance of %s: %w", b.name, err)
	}
	return nil
}

// leave ends the backend. No caller should be calling it any more.
func (b *backend) leave(consul *api.Client) error {
	b.stop()
	if err := consul.Agent().ServiceDeregister(b.registration.ID); err != nil {
		return fmt.Errorf("deregister %s: %w", b.name, err)
	}
	return nil
}

// fabioTags are the tags by which fabio routes to the gRPC or the HTTP service.
func fabioTags(f front) []string {
	if f == grpcPlain {
		return []string{"urlprefix-/protos.Ping proto=grpc"}
	}
	return []string{"urlprefix-/"}
}

// traefikTags are the tags by which Traefik routes two fronts' entry points to a service.
func traefikTags(service string, plain, tls front) []string {
	rule, scheme := "PathPrefix(`/`)", "http"
	if plain == grpcPlain {
		rule, scheme = "PathPrefix(`/"+protos.Ping_ServiceDesc.ServiceName+"`)", "h2c"
	}
	router := "traefik.http.routers." + service
	return []string{
		"traefik.enable=true",
		router + ".rule=" + rule,
		router + ".entrypoints=" + entryPoints[plain],
		router + "-tls.rule=" + rule,
		router + "-tls.entrypoints=" + entryPoints[tls],
		router + "-tls.tls=true",
		"traefik.http.services." + service + ".loadbalancer.server.scheme=" + scheme,
	}
}

// entryPoints are Traefik's names of a balancer's fronts.
var entryPoints = [frontCount]string{grpcPlain: "grpc", httpPlain: "http", grpcTLS: "grpcs", httpTLS: "https"}
