// Package registration keeps one instance of a service registered with the
// Consul agent next to it, and takes it away without losing a request: out of
// the rotation first, serving on while callers notice, deregistered last.
//
// Registration is a loop, not a call. What the agent knows is compared with
// what is wanted every two seconds, so an agent that was restarted or wiped, or
// a hand that changed the entry, costs seconds and needs nobody.
package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// compareEvery is how often the agent is asked whether it still has what
	// was registered. Both requests stay on the machine.
	compareEvery = 2 * time.Second
	// retryEvery takes its place while the agent does not answer.
	retryEvery = 500 * time.Millisecond
	// probeEvery is how often a starting server is asked whether it is up.
	probeEvery = 100 * time.Millisecond
	// requestTimeout bounds each request to the agent, also at the end: an
	// agent that is away or frozen must not hold up the server's shutdown.
	requestTimeout = 3 * time.Second
)

// Registrar registers one instance of a service. Make it with [New] and start
// it once, with [Registrar.Run] or [Registrar.Exec].
type Registrar struct {
	cfg    Config
	agent  *agent
	logger *slog.Logger

	hurry      chan struct{}
	child      atomic.Pointer[child]
	attempted  bool // Consul may know the service: deregister at the end
	registered bool // Consul knows it: drain before
	away       bool // the agent did not answer last time
}

// New makes a registrar. It does not talk to Consul yet; what it finds wrong is
// the configuration of the connection, for example a certificate that can't be
// read.
func New(cfg Config, logger *slog.Logger) (*Registrar, error) {
	agent, err := newAgent(cfg)
	if err != nil {
		return nil, err
	}
	return &Registrar{
		cfg:    cfg,
		agent:  agent,
		logger: logger.With("service", cfg.Name, "id", cfg.ID),
		hurry:  make(chan struct{}, 1),
	}, nil
}

// Run registers the service and keeps it registered until ctx is done. Then it
// leaves: maintenance first, which takes the instance out of the rotation, then
// Config.Drain of patience while the server goes on serving, then it
// deregisters.
//
// The error is about the first registration only: Config.Attempts failed. An
// agent that goes away later is waited for.
func (r *Registrar) Run(ctx context.Context) error {
	err := r.join(ctx)
	if r.registered {
		r.drain(nil)
	}
	if r.attempted {
		r.deregister()
	}
	return err
}

// Hurry cuts short what is being waited for on the way out: the drain, and
// after it the time a child started by [Registrar.Exec] has for stopping.
func (r *Registrar) Hurry() {
	select {
	case r.hurry <- struct{}{}:
	default: // one is waiting already
	}
}

// join registers the service as soon as the server is ready and keeps it so
// until ctx is done.
func (r *Registrar) join(ctx context.Context) error {
	ready := r.awaitServer(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err := r.registerFirst(ctx, ready); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	r.stay(ctx)
	return nil
}

// awaitServer asks the server its own health check until it answers well, so
// that it can be registered as passing and gets traffic without waiting for
// Consul's first check. After Config.ReadyTimeout it gives up: the instance is
// then registered as critical, for everybody to see.
func (r *Registrar) awaitServer(ctx context.Context) bool {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ReadyTimeout)
	defer cancel()
	var last error
	for {
		if err := r.probe(ctx); err == nil {
			r.logger.Info("server answers its health check", "check", r.cfg.Check.Type, "took", time.Since(started).Round(time.Millisecond))
			return true
		} else if ctx.Err() == nil || last == nil {
			last = err // the one the deadline cut off says nothing
		}
		select {
		case <-time.After(probeEvery):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				r.logger.Warn("server does not answer its health check, registering it as critical", "waited", r.cfg.ReadyTimeout, "error", last)
			}
			return false
		}
	}
}

func (r *Registrar) probe(ctx context.Context) error {
	address, _, err := r.agent.place(ctx, r.cfg)
	if err != nil {
		return err
	}
	return r.cfg.Check.probe(ctx, r.cfg.Check.target(address, r.cfg.Port))
}

func (r *Registrar) registerFirst(ctx context.Context, ready bool) error {
	var err error
	for attempt := 1; attempt <= r.cfg.Attempts; attempt++ {
		if attempt > 1 {
			select {
			case <-time.After(r.cfg.AttemptDelay):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r.attempted = true // also when only the answer gets lost
		var entry registration
		// Not cut off half-way: whoever is in the rotation must be drained.
		if entry, err = r.register(context.WithoutCancel(ctx), ready); err == nil {
			r.logger.Info("registered", "address", entry.service.Address, "port", r.cfg.Port,
				"status", entry.service.Check.Status, "check", entry.service.Check.Notes)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.logger.Warn("registration failed", "attempt", attempt, "of", r.cfg.Attempts, "error", err)
	}
	r.attempted = r.registered
	return fmt.Errorf("register %q with the Consul agent at %s: %d attempts failed, the last one: %w",
		r.cfg.ID, r.agent.address, r.cfg.Attempts, err)
}

// register writes the entry, and then ends the maintenance that a killed
// predecessor with the same id left behind. In this order the instance never
// shows with its predecessor's data.
func (r *Registrar) register(ctx context.Context, ready bool) (registration, error) {
	entry, err := r.agent.wanted(ctx, r.cfg)
	if err != nil {
		return entry, err
	}
	entry.vouch(ready)
	if err := r.agent.register(ctx, entry); err != nil {
		return entry, err
	}
	r.registered = true
	cleared, err := r.agent.clearMaintenance(ctx, r.cfg.ID)
	if err != nil {
		return entry, err
	}
	if cleared {
		r.logger.Info("cleared the maintenance a former registrar had left on")
	}
	return entry, nil
}

// stay compares what the agent knows with what is wanted until ctx is done.
func (r *Registrar) stay(ctx context.Context) {
	var heartbeat <-chan time.Time
	if r.cfg.Check.Type == CheckTTL {
		ticker := time.NewTicker(r.cfg.Check.Interval)
		defer ticker.Stop()
		heartbeat = ticker.C
		r.heartbeat(ctx)
	}
	compare := time.NewTimer(compareEvery)
	defer compare.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heartbeat:
			if r.heartbeat(ctx) != nil {
				compare.Reset(0) // most likely the agent forgot
			}
		case <-compare.C:
			if r.compare(ctx) {
				compare.Reset(compareEvery)
			} else {
				compare.Reset(retryEvery)
			}
		}
	}
}

func (r *Registrar) heartbeat(ctx context.Context) error {
	return r.agent.heartbeat(ctx, r.cfg.ID)
}

// compare puts right what the agent has wrong, and tells whether it could.
func (r *Registrar) compare(ctx context.Context) bool {
	difference, err := r.putRight(ctx)
	switch {
	case ctx.Err() != nil:
		return true
	case err != nil:
		if !r.away {
			r.logger.Warn("Consul agent refuses or does not answer, trying until it does", "agent", r.agent.address, "error", err)
		}
		r.away = true
		return false
	case r.away:
		r.logger.Info("Consul agent answers again", "agent", r.agent.address)
	}
	r.away = false
	if difference != "" {
		r.logger.Info("registered again", "reason", difference)
	}
	return true
}

func (r *Registrar) putRight(ctx context.Context) (difference string, err error) {
	entry, err := r.agent.wanted(ctx, r.cfg)
	if err != nil {
		return "", err
	}
	difference, err = r.agent.difference(ctx, entry)
	if err != nil || difference == "" {
		return "", err
	}
	ready := r.probe(ctx) == nil
	if _, err := r.register(context.WithoutCancel(ctx), ready); err != nil {
		return "", err
	}
	if r.cfg.Check.Type == CheckTTL {
		return difference, r.heartbeat(ctx)
	}
	return difference, nil
}

// drain takes the instance out of the rotation and gives callers time to
// notice. It ends early when Hurry is called or when over is closed. It runs
// after the caller's context has ended, so its waits have their own limits.
func (r *Registrar) drain(over <-chan struct{}) {
	err := r.agent.enterMaintenance(context.Background(), r.cfg.ID)
	if err != nil {
		r.logger.Warn("can't leave the rotation, serving on for the drain period all the same", "drain", r.cfg.Drain, "error", err)
	} else {
		r.logger.Info("left the rotation, serving on", "drain", r.cfg.Drain)
	}
	select {
	case <-time.After(r.cfg.Drain):
	case <-r.hurry:
		r.logger.Info("drain cut short")
	case <-over:
	}
}

func (r *Registrar) deregister() {
	if err := r.agent.deregister(context.Background(), r.cfg.ID); err != nil {
		r.logger.Warn("can't deregister, leaving it to Consul", "deregister_after", r.cfg.Check.DeregisterAfter, "error", err)
		return
	}
	r.logger.Info("deregistered")
}
