package democlient

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/metadata"

	"lbctl/internal/demotrace"
	"lbctl/protos"
)

// load makes the calls of cfg and returns the report of rec. When ctx is done it starts no more
// calls; those in flight go on until they are answered or time out. Its error is about an
// invalid target or a file for TLS; failed calls are in the report.
func load(ctx context.Context, cfg config, rec *recorder, opts ...grpc.DialOption) (report, error) {
	transport, err := cfg.credentials()
	if err != nil {
		return report{}, err
	}
	clients := make([]protos.PingClient, cfg.connections)
	for i := range clients {
		conn, err := dial(cfg, append(opts, grpc.WithTransportCredentials(transport)))
		if err != nil {
			return report{}, fmt.Errorf("target %q: %w", cfg.target, err)
		}
		defer conn.Close()
		clients[i] = protos.NewPingClient(conn)
	}
	if cfg.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.duration)
		defer cancel()
	}

	var taken atomic.Int64
	take := func() bool { return cfg.calls == 0 || taken.Add(1) <= int64(cfg.calls) }
	var workers sync.WaitGroup
	for i := range cfg.workers {
		w := worker{
			client: clients[i%len(clients)],
			cfg:    cfg,
			rec:    rec,
			// The workers start at different times, so that the load is even.
			start: rec.started.Add(cfg.interval / time.Duration(cfg.workers) * time.Duration(i)),
		}
		workers.Go(func() { w.run(ctx, take) })
	}
	workers.Wait()
	return rec.report(time.Now()), nil
}

// dial returns a connection, which is opened by the first call.
func dial(cfg config, opts []grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append(opts,
		grpc.WithNoProxy(), // a web proxy must not stand before the balancer
		grpc.WithConnectParams(grpc.ConnectParams{
			// gRPC's default back-off grows to two minutes, which would lengthen every
			// measured outage.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
	if cfg.authority != "" {
		opts = append(opts, grpc.WithAuthority(cfg.authority))
	}
	return grpc.NewClient(cfg.target, opts...)
}

// worker makes one call at a time.
type worker struct {
	client protos.PingClient
	cfg    config
	rec    *recorder
	start  time.Time // of the first call
}

func (w *worker) run(ctx context.Context, take func() bool) {
	call := w.unary
	if w.cfg.stream {
		c := &conversation{client: w.client, timeout: w.cfg.timeout, rec: w.rec}
		defer c.close()
		call = c.exchange
	}
	for next := w.start; sleepUntil(ctx, next) && take(); {
		begun := time.Now()
		answer, err := call()
		w.rec.call(begun, time.Since(begun), answer, err)
		// Missed calls are not made later, because they would be a burst.
		next = later(next.Add(w.cfg.interval), time.Now())
	}
}

func (w *worker) unary() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.timeout)
	defer cancel()
	if !w.cfg.trace {
		answer, err := w.client.SayHello(ctx, request())
		return answer.GetGreeting(), err
	}
	var (
		id              demotrace.ID
		header, trailer metadata.MD
		begun           = time.Now()
	)
	answer, err := w.client.SayHello(demotrace.WithID(ctx, &id), request(), grpc.Header(&header), grpc.Trailer(&trailer))
	w.rec.trace(id.Or(header, trailer), time.Since(begun), err)
	return answer.GetGreeting(), err
}

func request() *protos.PingMessage {
	return &protos.PingMessage{Greeting: "Hello from grpc_client."}
}

// sleepUntil waits until t, and returns false if ctx was done before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	if ctx.Err() != nil {
		return false
	}
	d := time.Until(t)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
