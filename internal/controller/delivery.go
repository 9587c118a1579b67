package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// Endpoints answers nginx's questions for the servers of its upstreams.
type Endpoints interface {
	// Set replaces the servers of all upstreams. seen is when the answer of Consul came that they
	// follow from; zero for none.
	Set(upstreams map[string][]resolver.Target, seen time.Time)
	// Unfetched returns the upstreams whose newest servers nginx may not use yet, with the
	// time since when they have these servers.
	Unfetched() map[string]time.Time
	// Known reports whether nginx has fetched servers of an upstream.
	Known(upstream string) bool
	// Asks reports whether nginx is asking for an upstream, or did so recently.
	Asks(upstream string) bool
	// Fetched fires when nginx has come to use the newest servers of an upstream.
	Fetched() <-chan struct{}
	// Restarted is called when nginx has restarted, some time after the time given: it has
	// no servers but those that it has fetched since then.
	Restarted(after time.Time)
}

// How long nginx may take to ask, and how often the loop checks.
const (
	// fetchCheckEvery is how often the loop checks whether nginx has fetched the newest
	// servers.
	fetchCheckEvery = time.Second
	// fetchCheckPause is the minimum time between two checks: an nginx that starts with a
	// thousand upstreams fetches their servers one by one.
	fetchCheckPause = 50 * time.Millisecond
	// askPatience is how long nginx may take before it is a problem: it sends a copy of
	// its question every five seconds.
	askPatience = 15 * time.Second
)

// delivery is the delivery of servers to nginx without a new generation: nginx starts
// with bootstrap servers, and asks for newer ones. The loop owns it. If nginx doesn't ask
// for servers, endpoints is nil and the methods do nothing.
type delivery struct {
	endpoints Endpoints

	asked    asked                        // upstreams of the current generation
	since    map[string]time.Time         // when nginx began to ask for an upstream of asked
	coming   asked                        // upstreams of the generation that nginx is moving to
	answers  map[string][]resolver.Target // what endpoints answers, by upstream; nil: nothing yet
	moving   *moving                      // servers that nginx has yet to fetch; nil: none
	reloaded bool                         // reloadSilent has reloaded nginx for them

	bootstrap bootstrap

	nextFetchCheck time.Time // when to call checkFetched; zero: never
	fetchChecked   time.Time // the last call of checkFetched
	master         nginx.Process
}

// asked has the upstreams of a generation for which nginx asks for servers.
type asked struct {
	upstreams map[string]bool
	// known is false for a generation that an older lbctl stored. Then upstreams is read
	// from its files, and may have names that lbctl no longer gives to upstreams.
	known bool
	older olderNames // of a generation that is not known
}

// askedBy returns the upstreams of a generation for which nginx asks for servers.
func askedBy(g nginx.Generation, files map[string][]byte) asked {
	a := asked{upstreams: map[string]bool{}, known: g.Upstreams != nil}
	for _, upstream := range g.Upstreams {
		a.upstreams[upstream] = true
	}
	if !a.known {
		a.upstreams, a.older = readOlder(files)
	}
	return a
}

func (a asked) names() []string {
	names := slices.Sorted(maps.Keys(a.upstreams))
	if names == nil {
		names = []string{} // nil is "not known"
	}
	return names
}

// askedIn returns the upstreams of a configuration for which nginx asks for servers.
func askedIn(cfg *render.Configuration) asked {
	a := asked{upstreams: make(map[string]bool, len(cfg.Upstreams)), known: true}
	for upstream := range cfg.Upstreams {
		a.upstreams[upstream] = true
	}
	return a
}

func newDelivery(e Endpoints, marks nginx.Marks) *delivery {
	return &delivery{
		endpoints: e,
		asked:     asked{upstreams: map[string]bool{}},
		bootstrap: bootstrap{lines: bootstrapLines{marks: marks, made: map[string]linesOf{}}, written: make(chan writtenBootstrap, 1)},
	}
}

// setServers gives endpoints the servers of all upstreams that nginx asks for. Call it
// after cfg, asked or coming has changed; it returns false if the servers are the same. An
// upstream without a service in cfg keeps its last servers: the service has left, and nginx
// serves it until it has moved to the generation without it. If there are no last servers,
// as after a rollback to a generation with a service that is gone, the upstream has none,
// and nginx answers that no instance is in rotation. seen is when the answer of Consul came from
// which the servers follow; zero for none.
func (d *delivery) setServers(cfg *render.Configuration, seen time.Time) bool {
	if d.endpoints == nil {
		return false
	}
	all := maps.Clone(cfg.Upstreams)
	if all == nil {
		all = map[string][]resolver.Target{}
	}
	for _, generation := range []asked{d.asked, d.coming} {
		var older map[string][]resolver.Target
		if !generation.known && len(generation.upstreams) > 0 {
			older = generation.older.targets(cfg)
		}
		for upstream := range generation.upstreams {
			if targets, ok := older[upstream]; ok {
				// A service of cfg may have the name now that another one had. The generation
				// that nginx moves to goes before the one that it leaves.
				if !d.coming.known || !d.coming.upstreams[upstream] {
					all[upstream] = targets
				}
				continue
			}
			if _, ok := all[upstream]; ok {
				continue
			}
			if targets, ok := cfg.Written[upstream]; ok {
				all[upstream] = targets
			} else if targets, ok := d.answers[upstream]; ok {
				all[upstream] = targets
			} else if generation.known {
				all[upstream] = nil
			}
		}
	}
	if d.answers != nil && maps.EqualFunc(all, d.answers, resolver.SameTargets) {
		return false
	}
	d.answers = all
	d.endpoints.Set(all, seen)
	return true
}

// asks reports whether nginx asks for the servers of a service, and gets an answer.
func (d *delivery) asks(s endpoints.Service) bool {
	upstream := render.UpstreamName(s.Protocol, s.Name)
	if !d.asked.known {
		switch older := d.asked.older.upstream(s); {
		case d.asked.upstreams[older]:
			upstream = older
		case older == "": // upstream may be another service's
			return false
		}
	}
	_, ok := d.answers[upstream]
	return ok && d.asked.upstreams[upstream]
}

// withServers returns the entries of the current generation. Where nginx asks for the
// servers of an entry, they are those of cfg.
func (d *delivery) withServers(current []endpoints.Entry, cfg *render.Configuration) []endpoints.Entry {
	if current == nil || d.endpoints == nil {
		return current
	}
	entries := slices.Clone(current)
	latest := cfg.Entries // both lists are sorted by name
	for n := range entries {
		e := &entries[n]
		for len(latest) > 0 && latest[0].Name < e.Name {
			latest = latest[1:]
		}
		if len(latest) == 0 {
			break
		}
		if latest[0].Name == e.Name && latest[0].Spec.Equal(e.Spec) && d.asks(e.Service) {
			*e = latest[0]
		}
	}
	return entries
}

// latestAsked returns the latest entries of the services whose servers nginx asks for.
// After a restart or a rollback the entries of the generation are unknown, and its numbers
// are from the time when it was made; nginx has these servers.
func (l *loop) latestAsked() []endpoints.Entry {
	if l.latest == nil {
		return nil
	}
	return l.delivery.askedOf(l.latest.Entries)
}

// askedOf returns the entries of the services whose servers nginx asks for.
func (d *delivery) askedOf(entries []endpoints.Entry) []endpoints.Entry {
	if d.endpoints == nil {
		return nil
	}
	var asked []endpoints.Entry
	for _, e := range entries {
		if d.asks(e.Service) {
			asked = append(asked, e)
		}
	}
	return asked
}

// unfetched returns Endpoints.Unfetched for the upstreams in asked, with times that are not
// before those in since.
func unfetched(e Endpoints, asked map[string]bool, since map[string]time.Time) map[string]time.Time {
	if e == nil {
		return nil
	}
	all := e.Unfetched()
	maps.DeleteFunc(all, func(upstream string, _ time.Time) bool { return !asked[upstream] })
	for upstream, at := range all {
		if since[upstream].After(at) {
			all[upstream] = since[upstream]
		}
	}
	return all
}

// ask makes a the upstreams of the current generation, which nginx serves since now.
func (d *delivery) ask(a asked, now time.Time) {
	since := make(map[string]time.Time, len(a.upstreams))
	for upstream := range a.upstreams {
		since[upstream] = now
		if at, ok := d.since[upstream]; ok && d.asked.upstreams[upstream] {
			since[upstream] = at
		}
	}
	d.asked, d.since, d.coming = a, since, asked{}
}

// restarted stores which master process runs. A new one has no servers yet. It started
// after the time given, at which the check before this one began.
func (d *delivery) restarted(master nginx.Process, after time.Time) {
	if master == (nginx.Process{}) || master == d.master {
		return
	}
	if d.master != (nginx.Process{}) {
		d.endpoints.Restarted(after)
		d.bootstrap.forgetAttempt()
	}
	d.master = master
}

// setServers gives endpoints the latest servers, without a new generation. seen is when the answer
// of Consul came from which they follow; zero for none.
func (l *loop) setServers(seen time.Time) {
	answers, before := l.delivery.answers, l.entries
	if l.latest == nil || !l.delivery.setServers(l.latest, seen) {
		return
	}
	l.entries = l.delivery.withServers(l.entries, l.latest)
	after, partial := l.entries, false
	if before == nil && len(l.delivered) > 0 {
		before, after, partial = l.delivery.askedOf(l.delivered), l.latestAsked(), true
	}
	l.delivered = l.latest.Entries
	l.delivery.move(moving{
		since: time.Now(), before: before, partial: partial,
		upstreams: changedUpstreams(answers, l.delivery.answers, slowUpstreams(before, after)),
	})
	if m := l.delivery.moving; m.partial {
		m.after = l.latestAsked()
	}
	l.writeBootstrapLater()
}

// prepare gives endpoints the servers for a generation before nginx moves to it, so that
// nginx gets answers at once. files are those of the generation. It returns a function that
// writes the bootstrap servers; call it outside the loop's goroutine.
func (l *loop) prepare(g nginx.Generation, files map[string][]byte) func() {
	d := l.delivery
	if d.endpoints == nil {
		return func() {}
	}
	d.coming = askedBy(g, files)
	l.setServers(time.Time{})
	if d.answers == nil {
		return func() {}
	}
	servers := d.servers(nil)
	return func() {
		// An error doesn't matter here: the loop writes them again once nginx has moved,
		// and reports the errors of that.
		_, _ = l.server.WriteBootstrapServers(servers)
	}
}

// checkFetchedSoon calls checkFetched, now or after fetchCheckPause, because nginx has
// fetched new servers.
func (l *loop) checkFetchedSoon(now time.Time) {
	if next := l.delivery.fetchChecked.Add(fetchCheckPause); now.Before(next) {
		l.delivery.nextFetchCheck = next
		return
	}
	l.checkFetched(now)
}

// checkFetched checks whether nginx has fetched all new servers, records when it has, and
// makes it drop the bootstrap servers that it no longer needs.
func (l *loop) checkFetched(now time.Time) {
	d := l.delivery
	if d.endpoints == nil {
		return
	}
	d.nextFetchCheck, d.fetchChecked = time.Time{}, now
	if d.answers == nil || l.ctx.Err() != nil || d.moving == nil && len(d.bootstrap.read) == 0 {
		return // nothing to check
	}
	if l.down != nil {
		d.nextFetchCheck = now.Add(fetchCheckEvery)
		return
	}
	if d.moving != nil {
		unfetched := unfetched(d.endpoints, d.asked.upstreams, d.since)
		if m := d.moving; !m.onlySteps() && !m.waits(unfetched) {
			d.moving = &moving{since: now, upstreams: map[string]bool{}}
			l.counted.succeed(now)
			if change := changes(m.before, l.movedTo(m)); m.before != nil && change != noChange {
				l.record(history.Event{Kind: history.Moved, Generation: l.current.Number, Change: change, Left: departures(m.before, l.movedTo(m))}, m.since)
			}
		}
		if len(unfetched) > 0 {
			d.nextFetchCheck = now.Add(fetchCheckEvery)
			l.reloadSilent(now, unfetched)
		} else {
			d.moving, d.reloaded = nil, false
		}
	}
	droppable, later := d.droppable(now)
	switch {
	case len(droppable) > 0 && l.job.what == "" && !now.Before(l.governor.earliest()):
		l.dropBootstrapServers(now, droppable)
	case len(droppable) > 0 || later:
		d.nextFetchCheck = now.Add(fetchCheckEvery)
	}
}

// dropBootstrapServers makes nginx drop the bootstrap servers of upstreams whose servers
// it has fetched.
func (l *loop) dropBootstrapServers(now time.Time, droppable []string) {
	l.delivery.bootstrap.dropped(now, droppable)
	l.governor.reload(now)
	l.work("nginx is being reloaded without its bootstrap servers, since it has fetched newer servers", func(ctx context.Context) func() {
		err := l.server.Reload(ctx)
		l.countReload(ReloadBootstrap, now, err)
		return func() {
			if err == nil {
				l.delivery.bootstrap.read = nil
				l.opts.Logger.Info("nginx has dropped bootstrap servers, since it has fetched newer servers", "generation", l.current.Number, "upstreams", len(droppable))
			} else if !l.canceled(err) {
				l.opts.Logger.Warn("nginx keeps its bootstrap servers: its reload failed", "error", err)
			}
			l.checks.epoch++
			l.checks.next = time.Now() // after an error, the check tries again
		}
	})
}
