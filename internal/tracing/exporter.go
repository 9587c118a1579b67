// Package tracing makes spans of the lines in nginx's access log and sends them to a receiver of
// OpenTelemetry's protocol, OTLP: one span for a request, and one for each try to have an
// instance answer it. nginx itself chooses which traces are sampled, and names them in the log.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"lbctl/internal/accesslog"
	"lbctl/internal/printable"
)

const (
	// batchSize is how many requests are sent together.
	batchSize = 512
	// usualInterval is how long spans wait for others to be sent with.
	usualInterval = time.Second
	// usualPatience is how long the last spans may take while lbctl ends.
	usualPatience = 2 * time.Second
)

// Options say where spans go, and what they say of their origin. Instances and Logger are
// required.
type Options struct {
	// Endpoint is the receiver's URL, as CheckEndpoint wants it; default that of OpenTelemetry's
	// variables, or else http://localhost:4317.
	Endpoint string
	// Version is lbctl's.
	Version   string
	Instances Instances
	Logger    *slog.Logger
}

// Exporter sends the spans of sampled requests.
type Exporter struct {
	opts     Options
	client   client
	resource *tracepb.ResourceSpans // without spans
	queue    queue
	interval time.Duration
	patience time.Duration

	exported, dropped atomic.Uint64

	// Of the goroutine that sends.
	failing bool   // the log has said that spans are dropped
	known   uint64 // dropped after the last upload
}

// New makes an Exporter, which takes further settings from OpenTelemetry's variables, such as
// OTEL_EXPORTER_OTLP_HEADERS and OTEL_SERVICE_NAME. It does not connect yet.
func New(ctx context.Context, opts Options) (*Exporter, error) {
	client, err := newClient(opts.Endpoint, opts.Logger)
	if err != nil {
		return nil, err
	}
	resource, err := newResource(ctx, opts.Version)
	if err != nil {
		return nil, err
	}
	return &Exporter{opts: opts, client: client, resource: resource, queue: queue{full: make(chan struct{}, 1)}, interval: usualInterval, patience: usualPatience}, nil
}

// Take takes what the access log says of a request. It never waits: while the receiver is away
// or slow, only some requests are kept, and the spans of others are dropped.
func (e *Exporter) Take(r *accesslog.Record) {
	if !isSampled(r.Trace) || r.Internal() || r.Health() {
		return
	}
	if !e.queue.add(r) {
		e.dropped.Add(uint64(1 + len(realTries(r))))
	}
}

// Counts returns how many spans the receiver has got, and how many were dropped.
func (e *Exporter) Counts() (exported, dropped uint64) {
	return e.exported.Load(), e.dropped.Load()
}

// Run sends spans until ctx is done. Then it sends those that still wait, for some seconds at
// most, and returns ctx's error.
func (e *Exporter) Run(ctx context.Context) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(e.patience, cancel) })()
	if err := e.client.Start(sending); err != nil {
		return fmt.Errorf("send traces to %s: %w", e.client.endpoint, err)
	}
	e.opts.Logger.Info("traces are sent", "endpoint", e.client.endpoint)
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()
	for last := false; !last; {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-e.queue.full:
		}
		last = ctx.Err() != nil
		e.send(sending)
	}
	if err := e.client.Stop(sending); err != nil {
		e.opts.Logger.Debug("the connection for traces did not end well", "endpoint", e.client.endpoint, "reason", reason(err))
	}
	return ctx.Err()
}

// send sends what waits.
func (e *Exporter) send(ctx context.Context) {
	waiting := e.queue.take()
	for len(waiting) > 0 {
		n := min(batchSize, len(waiting))
		var spans []*tracepb.Span
		for i := range waiting[:n] {
			spans = e.appendSpans(spans, &waiting[i].Record)
		}
		waiting = waiting[n:]
		if len(spans) > 0 {
			e.upload(ctx, spans)
		}
	}
}

func (e *Exporter) upload(ctx context.Context, spans []*tracepb.Span) {
	rejected, err := e.client.upload(ctx, e.resource, spans)
	e.exported.Add(uint64(len(spans) - rejected))
	dropped := e.dropped.Add(uint64(rejected))
	if dropped > e.known && rejected == 0 {
		err = errors.New("they come faster than the receiver takes them")
	}
	e.tell(dropped, dropped > e.known, err)
	e.known = dropped
}

// tell logs once that spans are dropped, and once that they are sent again.
func (e *Exporter) tell(dropped uint64, failing bool, why error) {
	switch {
	case failing && !e.failing:
		e.opts.Logger.Warn("traces can't be sent, so spans are dropped", "endpoint", e.client.endpoint, "reason", reason(why))
	case !failing && e.failing:
		e.opts.Logger.Info("traces are sent again", "endpoint", e.client.endpoint, "dropped_spans", dropped)
	}
	e.failing = failing
}

// reason returns an error as one short line. A receiver may write anything into it.
func reason(err error) string {
	const most = 300
	line := printable.Line(err.Error())
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "..."
	}
	return line
}
