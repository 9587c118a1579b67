package health

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy/policytest"
	"lbctl/internal/probe"
	"lbctl/internal/routing"
)

// catalog is a table and a controller.
type catalog struct {
	mu      sync.Mutex
	entries []endpoints.Entry
	started bool // lbctl has a configuration
}

func (c *catalog) Entries() []endpoints.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries
}

func (c *catalog) set(entries ...endpoints.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.started = entries, true
}

func (c *catalog) Pinned() controller.Pinned { return controller.Pinned{} }

func (c *catalog) Routing() controller.Routing {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		return controller.Routing{}
	}
	return controller.Routing{Listeners: []routing.Listener{}}
}

// prober has an outcome for each service, and counts the probes that are made apart.
type prober struct {
	newest map[string]probe.Newest
	once   atomic.Int64
	delay  time.Duration
	err    error
}

func (p *prober) Newest(service string) probe.Newest { return p.newest[service] }

func (p *prober) Once(ctx context.Context, _ endpoints.Entry, _ endpoints.Instance) (probe.Outcome, bool) {
	p.once.Add(1)
	o := probe.Outcome{At: time.Now(), Err: p.err}
	select {
	case <-time.After(p.delay):
	case <-ctx.Done():
		o.Err = ctx.Err()
	}
	o.Took = time.Since(o.At)
	return o, true
}

// grpcService is a gRPC service with an instance for each status.
func grpcService(name string, path string, instances ...endpoints.Status) endpoints.Entry {
	e := endpoints.Entry{State: endpoints.Fresh, Service: endpoints.Service{Name: name, OK: true,
		Spec: endpoints.Spec{Protocol: endpoints.GRPC, Routes: []endpoints.Route{{Path: path}}}}}
	for n, status := range instances {
		e.Instances = append(e.Instances, endpoints.Instance{
			ID: fmt.Sprintf("%s-%d", name, n+1), Node: "node", Address: "127.0.0.1", Port: 7000 + n, Weight: 1, Status: status,
		})
	}
	return e
}

func with(e endpoints.Entry, change func(*endpoints.Entry)) endpoints.Entry {
	change(&e)
	return e
}

// inPolicy gives a service a policy of the operator.
func inPolicy(pairs ...string) func(*endpoints.Entry) {
	return func(e *endpoints.Entry) { e.Policy = policytest.Settings(pairs...) }
}
