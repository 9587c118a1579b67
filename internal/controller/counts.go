package controller

import (
	"errors"
	"maps"
	"sync"
	"time"

	"lbctl/internal/measure"
	"lbctl/internal/nginx"
)

// ReloadReason is why nginx was to be moved to a generation, or to read its files again.
type ReloadReason string

// The reasons of reloads.
const (
	ReloadChange    ReloadReason = "change"    // a new configuration
	ReloadRetry     ReloadReason = "retry"     // a configuration that failed before
	ReloadDrift     ReloadReason = "drift"     // something other than lbctl had changed nginx's files, or what it served
	ReloadRollback  ReloadReason = "rollback"  // an operator's rollback
	ReloadBootstrap ReloadReason = "bootstrap" // nginx no longer needs the servers that it started with
	ReloadSilent    ReloadReason = "silent"    // nginx had stopped asking for its servers
)

// ReloadReasons returns all reasons.
func ReloadReasons() []ReloadReason {
	return []ReloadReason{ReloadChange, ReloadRetry, ReloadDrift, ReloadRollback, ReloadBootstrap, ReloadSilent}
}

// ReloadOutcome is how a reload ended.
type ReloadOutcome string

// The outcomes of reloads.
const (
	ReloadSucceeded  ReloadOutcome = "success"
	ReloadRejected   ReloadOutcome = "rejected"    // nginx -t refused the configuration, so nginx was not reloaded
	ReloadRolledBack ReloadOutcome = "rolled_back" // nginx did not accept the generation, and serves the one before
	ReloadNoWayBack  ReloadOutcome = "no_way_back" // nginx did not accept it, and doesn't serve the one before either
	ReloadNotRunning ReloadOutcome = "not_running" // nginx does not run; it starts with the generation
	ReloadFailed     ReloadOutcome = "failed"      // anything else, such as a full disk or a timeout
)

// ReloadOutcomes returns all outcomes.
func ReloadOutcomes() []ReloadOutcome {
	return []ReloadOutcome{ReloadSucceeded, ReloadRejected, ReloadRolledBack, ReloadNoWayBack, ReloadNotRunning, ReloadFailed}
}

// outcomeOf returns how a reload with that error ended.
func outcomeOf(err error) ReloadOutcome {
	switch {
	case err == nil:
		return ReloadSucceeded
	case errors.Is(err, nginx.ErrDegraded):
		return ReloadNoWayBack
	case errors.Is(err, nginx.ErrRejected):
		return ReloadRejected
	case errors.Is(err, nginx.ErrRolledBack):
		return ReloadRolledBack
	case errors.Is(err, nginx.ErrNotRunning):
		return ReloadNotRunning
	default:
		return ReloadFailed
	}
}

// Reload is a kind of reloads, as far as they are counted.
type Reload struct {
	Reason  ReloadReason
	Outcome ReloadOutcome
}

// Counts says what the loop has done since lbctl started.
type Counts struct {
	// Convergence is how long it took from an answer of Consul until nginx served a generation
	// with it, for each generation that has one.
	Convergence measure.Histogram
	Reloads     map[Reload]uint64 // missing: none
	// ReloadDuration is how long successful reloads took: from their test until nginx answered
	// from the generation and no old worker accepted connections any more.
	ReloadDuration measure.Histogram
	// Coalesced is how many configurations were never applied, because a newer one came first.
	Coalesced uint64
	// Succeeded is when nginx last got a generation, or fetched new servers; zero: not yet, nor
	// has an earlier lbctl done it.
	Succeeded time.Time
	// Failing: the last attempt to apply a configuration or to correct drift failed.
	Failing bool
}

// Counts returns what the loop has done. Any goroutine may call it.
func (c *Controller) Counts() Counts { return c.counted.counts() }

// counted counts what the loop does. Its zero value is ready.
type counted struct {
	convergence, reloading measure.Durations

	mu        sync.Mutex
	reloads   map[Reload]uint64
	coalesced uint64
	succeeded time.Time
	failing   bool
}

func (c *counted) counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counts{
		Convergence:    c.convergence.Histogram(),
		Reloads:        maps.Clone(c.reloads),
		ReloadDuration: c.reloading.Histogram(),
		Coalesced:      c.coalesced,
		Succeeded:      c.succeeded,
		Failing:        c.failing,
	}
}

// reload counts a reload that began at a time and ended with err now.
func (c *counted) reload(reason ReloadReason, began time.Time, err error) {
	now := time.Now()
	if err == nil {
		c.reloading.Add(now.Sub(began))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reloads == nil {
		c.reloads = map[Reload]uint64{}
	}
	c.reloads[Reload{reason, outcomeOf(err)}]++
}

func (c *counted) coalesce(configurations int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coalesced += uint64(configurations)
}

// succeed notes that nginx has got a generation or servers.
func (c *counted) succeed(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.succeeded) {
		c.succeeded = at
	}
}

func (c *counted) setFailing(failing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = failing
}

// awaiting is when the oldest answer of Consul came that nginx gets with the next generation.
// Zero means that there is none.
type awaiting struct{ seen time.Time }

// add notes an answer that came at a time; zero for none.
func (a *awaiting) add(seen time.Time) {
	if a.seen.IsZero() || !seen.IsZero() && seen.Before(a.seen) {
		a.seen = seen
	}
}

// take returns the time, and forgets it.
func (a *awaiting) take() (seen time.Time) {
	seen, a.seen = a.seen, time.Time{}
	return seen
}
