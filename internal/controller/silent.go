package controller

import (
	"context"
	"time"
)

// reloadSilent reloads an nginx that doesn't ask for servers that changed long ago. It waits for
// resolver.Timeout, an hour, after an error, or when nobody answered it for so long.
// New workers ask at once. It does so once: if nginx doesn't ask then either, it asks
// somebody else, and Status says so.
func (l *loop) reloadSilent(now time.Time, untaken map[string]time.Time) {
	d := l.delivery
	if d.woken || l.job.what != "" || now.Before(l.governor.earliest()) || !d.silent(now, untaken) {
		return
	}
	d.woken = true
	l.governor.reload(now)
	l.work("nginx doesn't ask for its servers, and is reloaded so that it does", func(ctx context.Context) func() {
		err := l.server.Reload(ctx)
		return func() {
			if err == nil {
				l.opts.Logger.Warn("nginx did not ask for its servers, and was reloaded so that it does", "generation", l.current.Number, "upstreams", len(untaken))
			} else if !l.givenUp(err) {
				l.opts.Logger.Warn("nginx doesn't ask for its servers, and could not be reloaded", "error", err)
			}
			l.checks.epoch++
			l.checks.next = time.Now()
		}
	})
}

// silent reports whether nginx asks no more for an upstream whose servers it should have
// taken.
func (d *delivery) silent(now time.Time, untaken map[string]time.Time) bool {
	for upstream, since := range untaken {
		if now.Sub(since) >= askPatience && !d.endpoints.Asks(upstream) {
			return true
		}
	}
	return false
}
