package registration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// ownerKey is the metadata key that names the registrar that owns an entry.
	ownerKey = "registrar-owner"
	// metricsKey is the metadata key with the port of the registrar's metrics.
	metricsKey = "registrar-metrics-port"
	// claimPatience is how long the owner of an entry has to answer a claim. It compares its
	// entry every compareEvery, and each request may take requestTimeout.
	claimPatience = 5 * time.Second
)

// errOtherOwner is the error for an entry that belongs to another registrar.
var errOtherOwner = errors.New("the entry belongs to another registrar")

// newOwner returns a description of this process, the value of ownerKey.
func newOwner() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host name: %w", err)
	}
	return fmt.Sprintf("host=%s pid=%d since=%s process=%s",
		host, os.Getpid(), time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), processIdentity(os.Getpid())), nil
}

// ownerEnded reports whether the described registrar has certainly ended. For a registrar on
// another machine or in another container it returns false.
func ownerEnded(owner string) bool {
	var host, since, process string
	var pid int
	if _, err := fmt.Sscanf(owner, "host=%s pid=%d since=%s process=%s", &host, &pid, &since, &process); err != nil {
		return false
	}
	here, err := os.Hostname()
	if err != nil || host != here || !sameProcessNamespace(process) {
		return false
	}
	return processIdentity(pid) != process
}

// mayWrite returns nil if the entry has no owner, belongs to this registrar, or belongs to
// one that has ended. Without this, two registrars with one id would overwrite each other's
// entry for ever.
//
// It adds a claim to the entry: a check that names this registrar. An owner that is alive
// removes the claim. The claim changes nothing else.
func (r *Registrar) mayWrite(ctx context.Context, found found) error {
	other := found.owner()
	if found.service == nil || other == "" || other == r.owner {
		return nil
	}
	if ownerEnded(other) {
		r.logger.Info("taking over the entry of a registrar that has ended", "former", other)
		return nil
	}
	r.logger.Warn("another registrar has the entry with this id, asking whether it is alive",
		"other", other, "other_address", found.address(), "own", r.owner, "within", claimPatience)
	err := r.agent.claim(ctx, r.cfg.ID, r.owner)
	if err != nil {
		return fmt.Errorf("ask the owner of the entry: %w", err)
	}
	patience, cancel := context.WithTimeout(ctx, claimPatience)
	defer cancel()
	for pause(patience, lookEvery) {
		now, err := r.agent.find(patience, r.cfg.ID)
		switch {
		case err != nil:
			continue // find asks again until the time is over
		case now.service == nil:
			return nil // the owner has left
		case now.claim() == "":
			return r.refused(now)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // the claim stays; this owner or the next one removes it
	}
	r.logger.Warn("the other registrar does not answer, taking over its entry", "other", other, "other_address", found.address())
	return nil
}

func (r *Registrar) refused(found found) error {
	return fmt.Errorf("register %q: %w, which is alive: %q at %s; this one is %q; give one of them another id (--id, SERVICE_ID) or stop it",
		r.cfg.ID, errOtherOwner, found.owner(), found.address(), r.owner)
}

// refuseClaim removes another registrar's claim, which shows that this one is alive.
func (r *Registrar) refuseClaim(ctx context.Context, found found) error {
	claimant := found.claim()
	if claimant == "" {
		return nil
	}
	if claimant != r.owner {
		r.logger.Warn("another registrar wants the entry with this id, refusing it", "other", claimant,
			"own", r.owner, "own_address", found.address())
	}
	return r.agent.dropClaim(ctx, r.cfg.ID)
}
