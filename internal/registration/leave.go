package registration

import (
	"context"
	"errors"
	"time"
)

const (
	// deregisterPatience bounds the attempts to deregister while the agent does
	// not answer.
	deregisterPatience = 6 * time.Second
	// lateRegistration is how long after it was sent a registration without an
	// answer may still be carried out by an agent that was slow.
	lateRegistration = 10 * time.Second
	// lookEvery is how often the agent is asked when a change is awaited.
	lookEvery = 200 * time.Millisecond
)

// drain takes the instance out of the rotation and gives callers time to
// notice. It ends early when Hurry is called or when over is closed. It runs
// after the caller's context has ended, so its waits have their own limits.
func (r *Registrar) drain(over <-chan struct{}) {
	switch {
	case r.superseded:
		r.logger.Info("serving on for callers that still know this instance", "drain", r.cfg.Drain)
	case !r.mayBeKnown:
		return
	default:
		known, err := r.agent.enterMaintenance(context.Background(), r.cfg.ID, r.owner)
		switch {
		case err != nil:
			r.logger.Warn("can't leave the rotation, serving on for the drain period all the same", "drain", r.cfg.Drain, "error", err)
		case !known:
			return
		default:
			r.logger.Info("left the rotation, serving on", "drain", r.cfg.Drain)
		}
	}
	select {
	case <-time.After(r.cfg.Drain):
	case <-r.hurries.first:
		r.logger.Info("drain cut short")
	case <-over:
	}
}

// deregister removes the entry if the agent may have it, and tries again while
// the agent is there and does not answer, or refuses a token that is just being
// replaced. It leaves an entry that another registrar has taken over.
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
			r.logger.Info("deregistered")
			return
		case errors.Is(err, errOtherOwner):
			r.logger.Info("not deregistering, the entry is another registrar's by now", "error", err)
			r.mayBeKnown = false
			return
		case notSent(err) || ctx.Err() != nil || !pause(ctx, retryEvery):
			r.logger.Warn("can't deregister, leaving it to Consul", "deregister_after", r.cfg.Check.DeregisterAfter, "error", err)
			r.mayBeKnown = false
			return
		}
	}
}

// stayAway follows deregister. A slow agent may carry out a registration that it
// did not answer after the deregistration. stayAway looks for the entry until that
// can't happen any more, and deregisters it again.
func (r *Registrar) stayAway() {
	until := r.unanswered.Add(lateRegistration)
	if !r.mayBeKnown || time.Now().After(until) {
		return
	}
	r.logger.Info("a registration had no answer, seeing to it that it does not come back", "until", until.Format(time.TimeOnly))
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

// pause waits, and tells whether ctx was not done meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
