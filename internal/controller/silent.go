package controller

import (
	"context"
	"time"
)

// reloadSilent reloads nginx if it has stopped asking for servers that changed. After an
// error, or without any answer for that long, nginx waits for resolver.Timeout, an hour,
// before it asks again; new workers ask at once. reloadSilent reloads once. If nginx
// doesn't ask then either, its templates name another resolver, and Status reports that.
func (l *loop) reloadSilent(now time.Time, unfetched map[string]time.Time) {
	d := l.delivery
	if d.reloaded || l.job.what != "" || now.Before(l.governor.earliest()) || !d.silent(now, unfetched) {
		return
	}
	d.reloaded = true
	l.governor.reload(now)
	l.work("nginx has stopped asking for its servers; lbctl is reloading it so that it asks again", func(ctx context.Context) func() {
		err := l.server.Reload(ctx)
		l.countReload(ReloadSilent, now, err)
		return func() {
			if err == nil {
				l.opts.Logger.Warn("nginx did not ask for its servers, and was reloaded so that it does", "generation", l.current.Number, "upstreams", len(unfetched))
			} else if !l.canceled(err) {
				l.opts.Logger.Warn("nginx has stopped asking for its servers, and its reload failed", "error", err)
			}
			l.checks.epoch++
			l.checks.next = time.Now()
		}
	})
}

// silent reports whether nginx has stopped asking for an upstream whose servers changed.
func (d *delivery) silent(now time.Time, unfetched map[string]time.Time) bool {
	for upstream, since := range unfetched {
		if now.Sub(since) >= askPatience && !d.endpoints.Asks(upstream) {
			return true
		}
	}
	return false
}
