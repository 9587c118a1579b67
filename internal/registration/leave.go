package registration

import (
	"context"
	"errors"
	"time"
)

const (
	// deregisterPatience is how long deregister keeps trying while the agent does not
	// answer.
	deregisterPatience = 6 * time.Second
	// lateRegistration is how long after a registration without an answer was sent a slow
	// agent may still carry it out.
	lateRegistration = 10 * time.Second
	// lookEvery is the interval between requests while waiting for a change.
	lookEvery = 200 * time.Millisecond
)

// drain takes the instance out of the rotation and gives callers time to notice. It ends
// early when Hurry is called or over is closed. It runs after the caller's context has
// ended, so its waits have their own limits.
func (r *Registrar) drain(over <-chan struct{}) {
	r.figures.registered.Store(false)
	switch {
	case r.superseded:
		r.logger.Info("serving on for callers that still know this instance", "drain", r.cfg.Drain)
	case !r.mayBeKnown:
		return
	default:
		known, err := r.agent.enterMaintenance(context.Background(), r.cfg.ID, r.owner)
		switch {
		case err != nil:
			r.logger.Warn("can't leave the rotation, serving on for the drain period nevertheless", "drain", r.cfg.Drain, "error", err)
		case !known:
			return
		default:
			r.logger.Info("left the rotation, serving on", "drain", r.cfg.Drain)
		}
	}
	r.figures.draining.Store(true)
	defer r.figures.draining.Store(false)
	select {
	case <-time.After(r.cfg.Drain):
	case <-r.hurries.first:
		r.logger.Info("drain cut short")
	case <-over:
	}
}

// deregister removes the entry if the agent may have it. It tries again while the agent
// does not answer, or refuses a token, which may just be being replaced. It leaves an entry
// that another registrar has taken over.
func (r *Registrar) deregister() {
	if !r.mayBeKnown {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deregisterPatience)
	defer cancel()
	for {
		err := r.agent.deregister(ctx, r.cfg.ID, r.owner)
		switch {
		case err == nil:
			r.figures.registered.Store(false)
			r.figures.deregistrations.Add(1)
			r.logger.Info("deregistered")
			return
		case errors.Is(err, errOtherOwner):
			r.logger.Info("not deregistering, another registrar has taken over the entry", "error", err)
			r.mayBeKnown = false
			return
		case notSent(err) || ctx.Err() != nil || !pause(ctx, retryEvery):
			r.logger.Warn("can't deregister, leaving it to Consul", "deregister_after", r.cfg.Check.DeregisterAfter, "error", err)
			r.mayBeKnown = false
			return
		}
	}
}

// stayAway follows deregister. A slow agent may carry out a registration that it did not
// answer only after the deregistration. stayAway watches for the entry until that can't
// happen any more, and deregisters it again.
func (r *Registrar) stayAway() {
	until := r.unanswered.Add(lateRegistration)
	if !r.mayBeKnown || time.Now().After(until) {
		return
	}
	r.logger.Info("a registration had no answer, watching that it does not come back", "until", until.Format(time.TimeOnly))
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for pause(ctx, lookEvery) {
		found, err := r.agent.find(ctx, r.cfg.ID)
		if err == nil && found.service != nil && found.owner() == r.owner {
			r.logger.Warn("a late registration came back, deregistering it")
			r.deregister()
		}
	}
}

// pause waits, and returns false if ctx was done before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
