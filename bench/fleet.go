//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// A fleet is the instances of one service, oldest first.
type fleet struct {
	site  *site
	name  string // of the service
	start func(t *testing.T, name string) *backend

	running []*backend
	count   int
	client  *api.Client
}

func (f *fleet) consul() *api.Client {
	if f.client == nil {
		f.client = f.site.apps.Client()
	}
	return f.client
}

// add starts and registers one more instance.
func (f *fleet) add(t *testing.T) *backend {
	t.Helper()
	f.count++
	b := f.start(t, fmt.Sprintf("%s-%d", f.name, f.count))
	require.NoError(t, b.register(f.consul()))
	f.running = append(f.running, b)
	return b
}

// take removes the oldest instance from the fleet. The caller makes it leave.
func (f *fleet) take() *backend {
	b := f.running[0]
	f.running = f.running[1:]
	return b
}

// takeLast is take for the youngest instance.
func (f *fleet) takeLast() *backend {
	b := f.running[len(f.running)-1]
	f.running = f.running[:len(f.running)-1]
	return b
}

// disband stops and deregisters all instances.
func (f *fleet) disband(t *testing.T) {
	for len(f.running) > 0 {
		if err := f.take().leave(f.consul()); err != nil {
			t.Error(err)
		}
	}
}

// instances is the number of instances of each service that newFleets starts.
const instances = 3

// newFleets starts the instances of both services.
func newFleets(t *testing.T, s *site) (grpc, web *fleet) {
	t.Helper()
	grpc = &fleet{site: s, name: grpcService, start: startGRPC}
	web = &fleet{site: s, name: httpService, start: startHTTP}
	for range instances {
		grpc.add(t)
		web.add(t)
	}
	return grpc, web
}

// upstream is nginx's configuration of the running instances.
func (f *fleet) upstream(keepalive int, zone bool) string {
	var servers []string
	for _, b := range f.running {
		servers = append(servers, fmt.Sprintf("127.0.0.1:%d", b.registration.Port))
	}
	return upstream(f.name, servers, keepalive, zone)
}

// awaitServed waits until every instance of both services has answered calls through
// all fronts that a balancer has.
func awaitServed(t *testing.T, s *site, b balancer, grpc, web *fleet) {
	t.Helper()
	for _, k := range []kind{grpcUnary, grpcUnaryTLS, http1, http1TLS} {
		if b.fronts()[k.front] == "" {
			continue
		}
		f := grpc
		if k.front == httpPlain || k.front == httpTLS {
			f = web
		}
		caller, err := k.caller(b.fronts(), s.identity)
		require.NoError(t, err)
		seen := map[string]bool{}
		lbtest.Eventually(t, fmt.Sprintf("every instance of %s answers: %s", f.name, k.name), func() error {
			for range 2 * len(f.running) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				name, err := caller.Call(ctx)
				cancel()
				if err != nil {
					return err
				}
				seen[name] = true
			}
			for _, backend := range f.running {
				if !seen[backend.name] {
					return fmt.Errorf("%s has not answered, only %v", backend.name, seen)
				}
			}
			return nil
		})
		caller.Close()
	}
}
