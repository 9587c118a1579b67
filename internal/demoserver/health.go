package demoserver

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthServer is gRPC's health service with watches that can be ended. Otherwise a single
// watcher would delay a graceful stop until its timeout.
type healthServer struct {
	*health.Server
	ending chan struct{}
}

// newHealthServer returns a health service that reports SERVING for the services.
func newHealthServer(services ...string) *healthServer {
	h := &healthServer{Server: health.NewServer(), ending: make(chan struct{})}
	for _, service := range services {
		h.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	return h
}

// endWatches ends every watch after its watcher has got NOT_SERVING. Call it once, after
// Shutdown.
func (h *healthServer) endWatches() { close(h.ending) }

func (h *healthServer) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	w := &watch{Health_WatchServer: stream, ctx: ctx, notified: make(chan struct{})}
	go func() {
		for _, reached := range []chan struct{}{h.ending, w.notified} {
			select {
			case <-reached:
			case <-ctx.Done():
				return
			}
		}
		cancel()
	}()
	if err := h.Server.Watch(req, w); ctx.Err() == nil || stream.Context().Err() != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the server is stopping")
}

// watch is a stream of Watch with its own context. notified is closed once the stream has sent
// another status than SERVING.
type watch struct {
	healthpb.Health_WatchServer
	ctx      context.Context
	once     sync.Once
	notified chan struct{}
}

func (w *watch) Context() context.Context { return w.ctx }

func (w *watch) Send(r *healthpb.HealthCheckResponse) error {
	err := w.Health_WatchServer.Send(r)
	if r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		w.once.Do(func() { close(w.notified) })
	}
	return err
}
