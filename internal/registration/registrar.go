// Package registration keeps one instance of a service registered with the
// Consul agent next to it, and takes it away without losing a request: out of
// the rotation first, serving on while callers notice, deregistered last.
//
// Registration is a loop, not a call. Every two seconds the registrar compares
// what the agent has with what it wants. So it repairs within seconds what a
// restarted agent has forgotten or what somebody has changed.
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
	// compareEvery is the time between two comparisons of what the agent has
	// with what is wanted. They usually cost requests on this machine only.
	compareEvery = 2 * time.Second
	// retryEvery replaces compareEvery while the agent does not answer.
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

	owner string // this registrar, as its entry's metadata names it

	hurries *hurries
	child   atomic.Pointer[child]

	mayBeKnown bool      // Consul may have the entry: drain and deregister at the end
	unanswered time.Time // when a registration was sent that had no answer
	superseded bool      // the entry became another registrar's
	away       bool      // the agent did not answer last time
	stopped    int       // the process of the command that is stopped, 0 for none
}

// New makes a registrar. It does not talk to Consul yet. It fails when the
// connection can't be made from the configuration, for example when a certificate
// can't be read.
func New(cfg Config, logger *slog.Logger) (*Registrar, error) {
	logger = logger.With("service", cfg.Name, "id", cfg.ID)
	agent, err := newAgent(cfg, logger)
	if err != nil {
		return nil, err
	}
	owner, err := newOwner()
	if err != nil {
		return nil, err
	}
	return &Registrar{
		cfg:     cfg,
		agent:   agent,
		logger:  logger,
		owner:   owner,
		hurries: newHurries(),
	}, nil
}

// Run registers the service and keeps it registered until ctx is done. Then it
// leaves: maintenance first, which takes the instance out of the rotation, then
// Config.Drain of patience while the server goes on serving, then it
// deregisters.
//
// The error is that Config.Attempts registrations failed, or that the entry
// belongs to another registrar which is alive. An agent that goes away later is
// waited for.
func (r *Registrar) Run(ctx context.Context) error {
	err := r.join(ctx)
	if !r.superseded { // there is no server to stop after the drain
		r.drain(nil)
	}
	r.deregister()
	r.stayAway()
	return err
}

// Reload reads the token and the certificates for Consul again. They are also read
// again by themselves when their files change.
func (r *Registrar) Reload() {
	if r.agent.clients.reload() {
		r.logger.Info("credentials for Consul read again")
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
	return r.stay(ctx)
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

// probe asks the server its health check once. A command of which a process is
// stopped is not ready, whatever the check says.
func (r *Registrar) probe(ctx context.Context) error {
	if pid := r.stoppedProcess(); pid != 0 {
		return errors.New(stoppedReason(pid))
	}
	address, _, err := r.agent.place(ctx, r.cfg)
	if err != nil {
		return err
	}
	return r.cfg.Check.probe(ctx, r.cfg.Check.target(address, r.cfg.Port))
}

func (r *Registrar) registerFirst(ctx context.Context, ready bool) error {
	var err error
	for attempt := 1; attempt <= r.cfg.Attempts; attempt++ {
		if attempt > 1 && !pause(ctx, r.cfg.AttemptDelay) {
			return ctx.Err()
		}
		var entry registration
		if entry, err = r.registerUnowned(ctx, ready); err == nil {
			r.logger.Info("registered", "address", entry.service.Address, "port", r.cfg.Port,
				"status", entry.service.Check.Status, "check", entry.service.Check.Notes)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errOtherOwner) {
			// An earlier attempt may have made the entry for a moment.
			r.superseded, r.mayBeKnown = r.mayBeKnown, false
			return err
		}
		r.logger.Warn("registration failed", "attempt", attempt, "of", r.cfg.Attempts, "error", err)
	}
	return fmt.Errorf("register %q with the Consul agent at %s: %d attempts failed, the last one: %w",
		r.cfg.ID, r.agent.address, r.cfg.Attempts, err)
}

// registerUnowned registers the instance unless its entry is another registrar's.
func (r *Registrar) registerUnowned(ctx context.Context, ready bool) (registration, error) {
	found, err := r.agent.find(ctx, r.cfg.ID)
	if err != nil {
		return registration{}, explain(err, r.cfg.Name)
	}
	if err := r.mayWrite(ctx, found); err != nil {
		return registration{}, err
	}
	// ctx does not end the request: a registration that may have arrived has to
	// be drained.
	return r.register(context.WithoutCancel(ctx), ready)
}

// register writes the entry. Then it ends the maintenance that a killed
// predecessor with the same id left behind: in the other order the predecessor's
// entry would get traffic for a moment.
func (r *Registrar) register(ctx context.Context, ready bool) (registration, error) {
	entry, err := r.agent.wanted(ctx, r.cfg, r.owner)
	if err != nil {
		return entry, err
	}
	entry.vouch(ready)
	sent := time.Now()
	err = r.agent.register(ctx, entry)
	if err != nil && !neverArrived(err) {
		// Only the answer may be lost.
		r.mayBeKnown, r.unanswered = true, sent
	}
	if err != nil {
		return entry, err
	}
	r.mayBeKnown = true
	found, err := r.agent.find(ctx, r.cfg.ID)
	if err != nil {
		return entry, err
	}
	if found.claim() == r.owner {
		if err := r.agent.dropClaim(ctx, r.cfg.ID); err != nil {
			return entry, err
		}
	}
	cleared, err := r.agent.clearMaintenance(ctx, r.cfg.ID, found)
	if err != nil {
		return entry, err
	}
	if cleared {
		r.logger.Info("cleared the maintenance a former registrar had left on")
	}
	return entry, nil
}

// stay compares what the agent knows with what is wanted until ctx is done, or
// until the entry belongs to another registrar.
func (r *Registrar) stay(ctx context.Context) error {
	var heartbeat <-chan time.Time
	if r.cfg.Check.Type == CheckTTL {
		ticker := time.NewTicker(r.cfg.Check.Interval)
		defer ticker.Stop()
		heartbeat = ticker.C
		_ = r.heartbeat(ctx) // the comparison tells why it fails
	}
	compare := time.NewTimer(compareEvery)
	defer compare.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heartbeat:
			if r.heartbeat(ctx) != nil {
				compare.Reset(0) // most likely the agent forgot
			}
		case <-compare.C:
			next, err := r.compare(ctx)
			if err != nil {
				return err
			}
			compare.Reset(next)
		}
	}
}

// heartbeat tells the agent that the server is alive, or that it is stopped.
func (r *Registrar) heartbeat(ctx context.Context) error {
	reason := ""
	if pid := r.stoppedProcess(); pid != 0 {
		reason = stoppedReason(pid)
	}
	return r.agent.heartbeat(ctx, r.cfg.ID, reason)
}

// stoppedProcess is the id of a process of the command that is stopped, 0 for
// none. It logs when that changes.
func (r *Registrar) stoppedProcess() int {
	server := r.child.Load()
	if server == nil {
		return 0
	}
	pid := server.stopped()
	switch {
	case pid != 0 && r.stopped == 0:
		r.logger.Warn("the command is stopped by a signal and answers no request", "pid", pid,
			"remedy", "kill -CONT; a server must not read from the terminal")
	case pid == 0 && r.stopped != 0:
		r.logger.Info("the command runs again", "pid", r.stopped)
	}
	r.stopped = pid
	return pid
}

func stoppedReason(pid int) string {
	return fmt.Sprintf("process %d of the command is stopped by a signal (SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU)", pid)
}

// compare registers again if the agent's entry differs from what is wanted, and
// returns the pause before the next comparison. It fails only when the entry
// belongs to another registrar.
func (r *Registrar) compare(ctx context.Context) (next time.Duration, err error) {
	r.stoppedProcess() // so that it is logged with every type of check
	difference, err := r.putRight(ctx)
	switch {
	case ctx.Err() != nil:
		return compareEvery, nil
	case errors.Is(err, errOtherOwner):
		r.superseded, r.mayBeKnown = true, false
		return 0, err
	case err != nil:
		if !r.away {
			r.logger.Warn("Consul agent refuses or does not answer, trying until it does", "agent", r.agent.address, "error", err)
		}
		r.away = true
		return retryEvery, nil
	case r.away:
		r.logger.Info("Consul agent answers again", "agent", r.agent.address)
	}
	r.away = false
	if difference != "" {
		r.logger.Info("registered again", "reason", difference)
	}
	return compareEvery, nil
}

func (r *Registrar) putRight(ctx context.Context) (difference string, err error) {
	entry, err := r.agent.wanted(ctx, r.cfg, r.owner)
	if err != nil {
		return "", err
	}
	found, err := r.agent.find(ctx, r.cfg.ID)
	if err != nil {
		return "", explain(err, r.cfg.Name)
	}
	if err := r.mayWrite(ctx, found); err != nil {
		return "", err
	}
	if err := r.refuseClaim(ctx, found); err != nil {
		return "", err
	}
	if difference = found.difference(entry); difference == "" {
		return "", nil
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
