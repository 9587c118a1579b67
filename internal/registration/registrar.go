// Package registration keeps one instance of a service registered with the Consul agent next
// to it, and removes it without losing a request: the instance first leaves the rotation,
// then keeps serving until callers have noticed, and is deregistered last.
//
// Registration is a loop, not a call. Every two seconds the registrar compares the agent's
// entry with the wanted one. So it repairs the entry within seconds after an agent has lost
// it or somebody has changed it.
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
	// compareEvery is the time between two comparisons of the agent's entry with the wanted
	// one. Their requests usually stay on this machine.
	compareEvery = 2 * time.Second
	// retryEvery replaces compareEvery while the agent does not answer.
	retryEvery = 500 * time.Millisecond
	// probeEvery is the interval between probes of a starting server.
	probeEvery = 100 * time.Millisecond
	// requestTimeout bounds each request to the agent, also at the end: an agent that is
	// away or paused must not delay the server's shutdown.
	requestTimeout = 3 * time.Second
)

// Registrar registers one instance of a service. Make it with [New] and start
// it once, with [Registrar.Run] or [Registrar.Exec].
type Registrar struct {
	cfg    Config
	agent  *agent
	logger *slog.Logger

	owner  string // the description of this registrar in its entry's metadata
	offers offers

	hurries *hurries
	child   atomic.Pointer[child]
	figures figures

	mayBeKnown bool      // Consul may have the entry: drain and deregister at the end
	unanswered time.Time // when a registration without an answer was sent
	superseded bool      // another registrar has taken over the entry
	away       bool      // the agent did not answer last time
	stopped    int       // a stopped process of the command; 0: none
}

// New makes a registrar. It does not contact Consul yet. It fails if no client can be made
// from the configuration, for example because a certificate can't be read.
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
		offers:  newOffers(cfg),
		hurries: newHurries(),
	}, nil
}

// Run registers the service and keeps it registered until ctx is done. Then it sets
// maintenance, which takes the instance out of the rotation, waits for Config.Drain while
// the server keeps serving, and deregisters.
//
// It returns an error if Config.Attempts registrations failed, or if the entry belongs to
// another registrar that is alive. If the agent goes away later, Run waits for it.
func (r *Registrar) Run(ctx context.Context) error {
	err := r.join(ctx)
	if !r.superseded {
		r.drain(nil)
	}
	r.deregister()
	r.stayAway()
	return err
}

// Reload reads the token and the certificates for Consul again. This also happens without
// Reload when their files change.
func (r *Registrar) Reload() {
	if r.agent.clients.reload() {
		r.logger.Info("credentials for Consul read again")
	}
}

// join registers the service as soon as the server is ready, and keeps it registered until
// ctx is done.
func (r *Registrar) join(ctx context.Context) error {
	ready := r.awaitServer(ctx)
	if ready && r.offers.enabled {
		// Without the services, it would ask to be the default of all gRPC calls.
		r.learn(r.askServer(ctx))
	}
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

// awaitServer probes the server until its health check passes, so that it can be registered
// as passing and gets traffic before Consul's first check. After Config.ReadyTimeout it
// gives up; the instance is then registered as critical, so that its failure is visible.
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
			last = err // the error of a probe that the deadline ended says nothing
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

// probe runs the server's health check once. A command with a stopped process is not ready,
// whatever the check says.
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
		entry, err = r.registerUnowned(ctx, ready)
		if err == nil || ctx.Err() == nil {
			r.figures.tried(err)
		}
		if err == nil {
			r.offers.changed = false
			r.logger.Info("registered", "address", entry.service.Address, "port", r.cfg.Port,
				"status", entry.service.Check.Status, "check", entry.service.Check.Notes)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errOtherOwner) {
			// An earlier attempt may have made the entry.
			r.superseded, r.mayBeKnown = r.mayBeKnown, false
			return err
		}
		r.logger.Warn("registration failed", "attempt", attempt, "of", r.cfg.Attempts, "error", err)
	}
	return fmt.Errorf("register %q with the Consul agent at %s: %d attempts failed, the last one: %w",
		r.cfg.ID, r.agent.address, r.cfg.Attempts, err)
}

// registerUnowned registers the instance unless another registrar owns its entry.
func (r *Registrar) registerUnowned(ctx context.Context, ready bool) (registration, error) {
	found, err := r.agent.find(ctx, r.cfg.ID)
	if err != nil {
		return registration{}, r.agent.explain(err, r.cfg.Name)
	}
	if err := r.mayWrite(ctx, found); err != nil {
		return registration{}, err
	}
	// ctx must not end the request: a registration that may have arrived has to be drained.
	return r.register(context.WithoutCancel(ctx), ready)
}

// wanted returns the entry that the agent should have.
func (r *Registrar) wanted(ctx context.Context) (registration, error) {
	return r.agent.wanted(ctx, r.offers.described(r.cfg), r.owner)
}

// register writes the entry, and then ends the maintenance that a killed predecessor with
// the same id left behind. In the other order the predecessor's entry would get traffic for
// a moment.
func (r *Registrar) register(ctx context.Context, ready bool) (registration, error) {
	entry, err := r.wanted(ctx)
	if err != nil {
		return entry, err
	}
	entry.vouch(ready)
	sent := time.Now()
	err = r.agent.register(ctx, entry)
	if err != nil && !neverArrived(err) {
		err = r.withoutAnswer(ctx, entry, sent, err)
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
		r.logger.Info("cleared the maintenance that a former registrar had left behind")
	}
	return entry, nil
}

// withoutAnswer is called after a registration that had no answer, with its error: the agent may
// have carried it out nevertheless. It returns nil if the agent has the entry.
func (r *Registrar) withoutAnswer(ctx context.Context, entry registration, sent time.Time, err error) error {
	earlier := r.unanswered
	r.mayBeKnown, r.unanswered = true, sent
	found, findErr := r.agent.find(ctx, r.cfg.ID)
	if findErr != nil || found.difference(entry) != "" {
		return err
	}
	if earlier.IsZero() { // otherwise the entry may be that of an earlier one, and this one still come
		r.unanswered = time.Time{}
	}
	r.logger.Info("the registration had no answer, but the agent has the entry", "error", err)
	return nil
}

// stay compares the agent's entry with the wanted one until ctx is done or the entry belongs
// to another registrar.
func (r *Registrar) stay(ctx context.Context) error {
	var heartbeat <-chan time.Time
	if r.cfg.Check.Type == CheckTTL {
		ticker := time.NewTicker(r.cfg.Check.Interval)
		defer ticker.Stop()
		heartbeat = ticker.C
		_ = r.heartbeat(ctx) // if it fails, compare logs why
	}
	compare := time.NewTimer(compareEvery)
	defer compare.Stop()
	var ask <-chan time.Time
	answers := make(chan answer, 1)
	if r.offers.enabled {
		ask = time.After(r.offers.nextQuestion())
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heartbeat:
			if r.heartbeat(ctx) != nil {
				compare.Reset(0) // probably the agent has lost the entry
			}
		case <-compare.C:
			next, err := r.compare(ctx)
			if err != nil {
				return err
			}
			compare.Reset(next)
		case <-ask:
			go func() { answers <- r.askServer(ctx) }() // a server that hangs must not delay the comparison
		case a := <-answers:
			if r.learn(a) {
				compare.Reset(0)
			}
			ask = time.After(r.offers.nextQuestion())
		}
	}
}

// heartbeat reports to the agent that the server is alive, or that it is stopped.
func (r *Registrar) heartbeat(ctx context.Context) error {
	reason := ""
	if pid := r.stoppedProcess(); pid != 0 {
		reason = stoppedReason(pid)
	}
	return r.agent.heartbeat(ctx, r.cfg.ID, reason)
}

// stoppedProcess returns the id of a stopped process of the command; 0 if there is none. It
// logs changes.
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

// compare registers again if the agent's entry differs from the wanted one, and returns the
// pause before the next comparison. It fails only if the entry belongs to another registrar.
func (r *Registrar) compare(ctx context.Context) (next time.Duration, err error) {
	r.stoppedProcess() // logs the stop, whatever the type of check
	difference, err := r.putRight(ctx)
	switch {
	case ctx.Err() != nil:
		return compareEvery, nil
	case errors.Is(err, errOtherOwner):
		r.superseded, r.mayBeKnown = true, false
		r.figures.registered.Store(false)
		return 0, err
	case err != nil:
		r.figures.answers.Store(false)
		if !r.away {
			r.logger.Warn("Consul agent refuses or does not answer, trying until it does", "agent", r.agent.address, "error", err)
		}
		r.away = true
		return retryEvery, nil
	case r.away:
		r.logger.Info("Consul agent answers again", "agent", r.agent.address)
	}
	r.away = false
	r.figures.answers.Store(true)
	if difference != "" {
		r.figures.repairs.Add(1)
		r.logger.Info("registered again", "reason", difference)
	}
	return compareEvery, nil
}

func (r *Registrar) putRight(ctx context.Context) (difference string, err error) {
	entry, err := r.wanted(ctx)
	if err != nil {
		return "", err
	}
	found, err := r.agent.find(ctx, r.cfg.ID)
	if err != nil {
		return "", r.agent.explain(err, r.cfg.Name)
	}
	if err := r.mayWrite(ctx, found); err != nil {
		return "", err
	}
	if err := r.refuseClaim(ctx, found); err != nil {
		return "", err
	}
	if difference = found.difference(entry); difference == "" {
		r.offers.changed = false
		return "", nil
	}
	if r.offers.changed {
		difference = "the server offers other gRPC services"
	}
	ready := r.probe(ctx) == nil
	_, err = r.register(context.WithoutCancel(ctx), ready)
	r.figures.tried(err)
	if err != nil {
		return "", err
	}
	r.offers.changed = false
	if r.cfg.Check.Type == CheckTTL {
		return difference, r.heartbeat(ctx)
	}
	return difference, nil
}
