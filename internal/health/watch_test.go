package health

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/endpoints"
)

// stream is a client that watches.
type stream struct {
	grpc.ServerStream
	ctx  context.Context
	seen []healthpb.HealthCheckResponse_ServingStatus
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Send(r *healthpb.HealthCheckResponse) error {
	s.seen = append(s.seen, r.Status)
	return nil
}

// from is the context of a client's call, over a worker of nginx.
func from(ctx context.Context, client string, pid int) context.Context {
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(headerClient, client, ":authority", "localhost"))
	return peer.NewContext(ctx, &peer.Peer{Addr: worker(pid)})
}

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
	unknown    = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
)

func stays(int) bool { return false }

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &catalog{}
		h := newHealthServer(&monitor{table: c, controller: c}, stays)
		ctx, cancel := context.WithCancel(t.Context())
		go h.run(ctx)
		streams := map[string]*stream{}
		ended := make(chan error, 3)
		for _, name := range []string{"a", "a.A", ""} {
			s := &stream{ctx: from(ctx, "192.0.2.1", 1)}
			streams[name] = s
			go func() { ended <- h.Watch(&healthpb.HealthCheckRequest{Service: name}, s) }()
		}
		step := func(entries ...endpoints.Entry) {
			c.set(entries...)
			time.Sleep(2 * changeInterval)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		step()
		step(grpcService("a", "/a.A", endpoints.Passing))
		step(grpcService("a", "/a.A", endpoints.Passing), grpcService("b", "/b.B", endpoints.Critical))
		step(grpcService("a", "/a.A", endpoints.Critical))
		step(grpcService("a", "/a.A", endpoints.Warning))
		time.Sleep(24 * time.Hour) // nothing changes, and nothing is said
		notKnown := healthpb.HealthCheckResponse_UNKNOWN
		for _, name := range []string{"a", "a.A"} {
			assert.Equal(t, []healthpb.HealthCheckResponse_ServingStatus{notKnown, unknown, serving, notServing, serving}, streams[name].seen, name)
		}
		assert.Equal(t, []healthpb.HealthCheckResponse_ServingStatus{notKnown, serving, notServing, serving}, streams[""].seen)
		cancel()
		for range 3 {
			assert.Equal(t, codes.Canceled, grpcstatus.Code(<-ended))
		}
		assert.Zero(t, h.all)
		assert.Empty(t, h.watches)
	})
}

func TestWatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &catalog{}
		c.set()
		h := newHealthServer(&monitor{table: c, controller: c}, stays)
		watch := func(client string) (cancel func(), ended chan error) {
			ctx, cancel := context.WithCancel(t.Context())
			ended = make(chan error, 1)
			go func() { ended <- h.Watch(&healthpb.HealthCheckRequest{}, &stream{ctx: from(ctx, client, 1)}) }()
			synctest.Wait()
			return cancel, ended
		}
		var cancels []func()
		for n := range maxWatches {
			cancel, ended := watch(fmt.Sprintf("192.0.2.%d", n/maxWatchesOfAddress))
			assert.Empty(t, ended)
			cancels = append(cancels, cancel)
		}
		_, ended := watch("192.0.2.100")
		assert.Equal(t, codes.Unimplemented, grpcstatus.Code(<-ended), "too many in all")
		cancels[0]()
		synctest.Wait()
		_, ended = watch("192.0.2.1")
		assert.Equal(t, codes.Unimplemented, grpcstatus.Code(<-ended), "too many of one address")
		cancel, ended := watch("192.0.2.0")
		assert.Empty(t, ended, "one has gone")
		for _, cancel := range append(cancels, cancel) {
			cancel()
		}
	})
}

func TestWatchDoesNotKeepAnOldWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &catalog{}
		c.set()
		var old atomic.Int64
		h := newHealthServer(&monitor{table: c, controller: c}, func(pid int) bool { return int64(pid) == old.Load() })
		ended := make(chan error, 1)
		go func() {
			ended <- h.Watch(&healthpb.HealthCheckRequest{}, &stream{ctx: from(t.Context(), "192.0.2.1", 4711)})
		}()
		time.Sleep(time.Hour)
		assert.Empty(t, ended)
		old.Store(4711)
		synctest.Wait()
		began := time.Now()
		assert.Equal(t, codes.Unavailable, grpcstatus.Code(<-ended))
		assert.GreaterOrEqual(t, time.Since(began), leavingInterval, "clients have time to go by themselves")
		assert.LessOrEqual(t, time.Since(began), 2*leavingInterval)
	})
}
