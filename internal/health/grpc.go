package health

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Limits of the gRPC health service.
const (
	maxWatches          = 1000 // at a time
	maxWatchesOfAddress = 250  // of one client's address
	maxListed           = 2000 // services in one answer
)

const (
	// changeInterval is how often the health is compared with what the clients that watch know.
	changeInterval = 200 * time.Millisecond
	// leavingInterval is how often a watch looks whether its worker of nginx is an old one. Clients
	// get this time to go to a new worker by themselves.
	leavingInterval = 10 * time.Second
)

// headerClient is the header in which nginx says from which address a call comes.
const headerClient = "x-lb-client"

// healthServer is the standard gRPC health service for the services behind the balancer. The name
// of a service is that in Consul, or that of a gRPC service that a route names; "" stands for all
// services together.
type healthServer struct {
	healthpb.UnimplementedHealthServer
	monitor *monitor
	leaving func(pid int) bool // see Server.Leaving
	stopped chan struct{}      // is closed when lbctl ends

	mu      sync.Mutex
	watches map[string]int // by the client's address
	all     int            // watches
	changed chan struct{}  // is closed at the next change
	last    *snapshot      // that the watches know
}

func newHealthServer(m *monitor, leaving func(pid int) bool) *healthServer {
	return &healthServer{monitor: m, leaving: leaving, stopped: make(chan struct{}), watches: map[string]int{}, changed: make(chan struct{})}
}

// run tells the watches about changes, until ctx is done.
func (h *healthServer) run(ctx context.Context) error {
	ticker := time.NewTicker(changeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		h.mu.Lock()
		if h.all > 0 {
			if now := h.monitor.now(); now != h.last {
				h.last = now
				close(h.changed)
				h.changed = make(chan struct{})
			}
		}
		h.mu.Unlock()
	}
}

var (
	errNotKnown = status.Error(codes.Unavailable, "lbctl: "+errUnknown.Error())
	errStopped  = status.Error(codes.Unavailable, "lbctl: lbctl ends: watch again")
	errLeaving  = status.Error(codes.Unavailable, "lbctl: nginx has new workers: watch again")
)

// Check says whether a service serves.
func (h *healthServer) Check(ctx context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s := h.monitor.now()
	if !s.known {
		return nil, errNotKnown
	}
	found := s.status(request.Service, authority(ctx))
	switch {
	case found != healthpb.HealthCheckResponse_SERVICE_UNKNOWN:
	case request.Service == "":
		return nil, status.Error(codes.NotFound, "lbctl: "+errHidden.Error())
	default:
		return nil, status.Errorf(codes.NotFound, "lbctl: there is no service %.100q", request.Service)
	}
	return &healthpb.HealthCheckResponse{Status: found}, nil
}

// List says of all services whether they serve.
func (h *healthServer) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	s := h.monitor.now()
	switch {
	case !s.known:
		return nil, errNotKnown
	case len(s.services) > maxListed:
		return nil, status.Errorf(codes.ResourceExhausted, "lbctl: there are %d services, and a list has at most %d: ask for one by its name", len(s.services), maxListed)
	}
	all := map[string]*healthpb.HealthCheckResponse{}
	if !s.none() {
		all[""] = &healthpb.HealthCheckResponse{Status: statusOf(s.well)}
	}
	for name, one := range s.services {
		all[name] = &healthpb.HealthCheckResponse{Status: statusOf(one.Serving)}
	}
	return &healthpb.HealthListResponse{Statuses: all}, nil
}

// Watch says at once whether a service serves, and again at each change.
func (h *healthServer) Watch(request *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	ctx := stream.Context()
	client := fromMetadata(ctx, headerClient)
	if !h.enter(client) {
		// A client that must not watch takes that for a server without health checks, and calls
		// it. Any other status would keep it from calling.
		return status.Errorf(codes.Unimplemented, "lbctl: too many clients watch the health of services (%d, and %d of one address), so nobody else can", maxWatches, maxWatchesOfAddress)
	}
	defer h.leave(client)
	look, leaving := time.NewTicker(leavingInterval), false
	defer look.Stop()
	told := healthpb.HealthCheckResponse_ServingStatus(-1)
	for {
		changed := h.change()
		s := h.monitor.now()
		found := healthpb.HealthCheckResponse_UNKNOWN
		if s.known {
			found = s.status(request.Service, authority(ctx))
		}
		if found != told {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: found}); err != nil {
				return err
			}
			told = found
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-h.stopped:
			return errStopped
		case <-changed:
		case <-look.C:
			if leaving {
				return errLeaving
			}
			leaving = h.leaving(int(workerOf(ctx)))
		}
	}
}

// change returns a channel that is closed at the next change.
func (h *healthServer) change() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// enter counts a watch of a client, and returns false if there are too many.
func (h *healthServer) enter(client string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxWatches || h.watches[client] >= maxWatchesOfAddress {
		return false
	}
	h.all++
	h.watches[client]++
	return true
}

func (h *healthServer) leave(client string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.watches[client]--; h.watches[client] == 0 {
		delete(h.watches, client)
	}
}

// status returns the status of a service, or of all for "".
func (s *snapshot) status(name, authority string) healthpb.HealthCheckResponse_ServingStatus {
	if name == "" && !s.none() {
		return statusOf(s.well)
	}
	found, ok := s.find(name, authority)
	if !ok {
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	}
	return statusOf(found.Serving)
}

func statusOf(serving bool) healthpb.HealthCheckResponse_ServingStatus {
	if serving {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}

// authority is the host that a client asks for.
func authority(ctx context.Context) string { return fromMetadata(ctx, ":authority") }

func fromMetadata(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}
