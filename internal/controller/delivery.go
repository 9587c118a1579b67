package controller

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// Endpoints is what nginx asks for the servers of its upstreams, where it can.
type Endpoints interface {
	// Set says which servers each upstream has.
	Set(map[string][]resolver.Target)
	// Untaken is the upstreams whose newest servers nginx has not certainly taken,
	// and since when they have them.
	Untaken() map[string]time.Time
	// Known reports whether nginx has servers of an upstream by asking.
	Known(upstream string) bool
	// Asks reports whether nginx asks for an upstream, or has lately.
	Asks(upstream string) bool
	// Taken fires when nginx has taken the newest servers of an upstream.
	Taken() <-chan struct{}
	// Restarted says that nginx is a new one, which has no servers yet.
	Restarted()
}

// Bounds of how long nginx may take to ask.
const (
	// lookEvery is how often the loop looks whether nginx has taken what it has to.
	lookEvery = time.Second
	// lookPause is the least time between two looks: an nginx that starts with a
	// thousand upstreams takes their servers one by one.
	lookPause = 50 * time.Millisecond
	// askPatience is how long nginx may take before it is a problem: it sends a copy of
	// its question every five seconds.
	askPatience = 15 * time.Second
)

// delivery is how the servers of upstreams reach nginx other than by its files: nginx
// asks for them, and starts with bootstrap servers. It belongs to the loop. Where nginx
// doesn't ask, endpoints is nil and nothing here happens.
type delivery struct {
	endpoints Endpoints

	asked  asked                        // by the current generation
	coming asked                        // by a generation that nginx is being moved to
	told   map[string][]resolver.Target // what nginx is answered, by upstream; nil: nothing yet
	moving *moving                      // servers on their way
	woken  bool                         // nginx was reloaded because it did not ask for them

	bootstrap bootstrap

	nextLook time.Time // when to look what nginx has taken; zero: never
	looked   time.Time // last
	master   nginx.Process
}

// asked is the upstreams whose servers a generation has nginx ask for.
type asked struct {
	upstreams map[string]bool
	// known is false for a generation that an older lbctl stored. Its upstreams are
	// guessed, and may have names that no service's upstream has any more.
	known bool
}

// moving is servers on their way to nginx.
type moving struct {
	since  time.Time
	before []endpoints.Entry // what nginx served; nil: not known
}

// olderDirective is how the templates of an older lbctl wrote that nginx asks for an
// upstream. No value of a service can make such a line: it is one word there, in
// another directive.
var olderDirective = regexp.MustCompile(`(?m)^\s*server\s+([a-z0-9_-]+)` + regexp.QuoteMeta(resolver.Host("")) + `\s+service=` + resolver.Service + `\s+resolve\b`)

// askedBy is what a generation has nginx ask for.
func askedBy(g nginx.Generation, files map[string][]byte) asked {
	a := asked{upstreams: map[string]bool{}, known: g.Upstreams != nil}
	for _, upstream := range g.Upstreams {
		a.upstreams[upstream] = true
	}
	if a.known {
		return a
	}
	for _, file := range files {
		for _, match := range olderDirective.FindAllSubmatch(file, -1) {
			a.upstreams[string(match[1])] = true
		}
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

// askedIn is what a configuration has nginx ask for.
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

// tell gives endpoints the servers that nginx asks for, after cfg or what nginx asks for
// has changed; it returns false when nothing is new. An upstream that no service of cfg
// stands behind has the servers that nginx was told last: a service that has left is
// served until nginx has moved to the generation without it. If nginx was never told
// any, as after a rollback to a generation with a service that is gone, it has none,
// and nginx answers that there is no healthy instance.
func (d *delivery) tell(cfg *render.Configuration) bool {
	if d.endpoints == nil {
		return false
	}
	all := maps.Clone(cfg.Upstreams)
	if all == nil {
		all = map[string][]resolver.Target{}
	}
	for _, generation := range []asked{d.asked, d.coming} {
		for upstream := range generation.upstreams {
			if _, ok := all[upstream]; ok {
				continue
			}
			if targets, ok := cfg.Written[upstream]; ok {
				all[upstream] = targets
			} else if targets, ok := olderTargets(cfg, upstream); ok && !generation.known {
				all[upstream] = targets
			} else if targets, ok := d.told[upstream]; ok {
				all[upstream] = targets
			} else if generation.known {
				all[upstream] = nil
			}
		}
	}
	if d.told != nil && maps.EqualFunc(all, d.told, resolver.SameTargets) {
		return false
	}
	d.told = all
	d.endpoints.Set(all)
	return true
}

// olderUpstream is the name by which the templates of an older lbctl had nginx ask for
// the upstream of a service.
func olderUpstream(s endpoints.Service) string {
	return strings.ToLower(string(s.Protocol) + "-" + s.Name)
}

// olderTargets is the servers of the one service whose upstream had that name with an
// older lbctl; false when there is none, or several differ only by case.
func olderTargets(cfg *render.Configuration, upstream string) ([]resolver.Target, bool) {
	var found []string
	for _, e := range cfg.Entries {
		if olderUpstream(e.Service) == upstream {
			found = append(found, render.UpstreamName(e.Protocol, e.Name))
		}
	}
	if len(found) != 1 {
		return nil, false
	}
	if targets, ok := cfg.Upstreams[found[0]]; ok {
		return targets, true
	}
	targets, ok := cfg.Written[found[0]]
	return targets, ok
}

// move notes that servers are on their way since then. before is what nginx served.
func (d *delivery) move(since time.Time, before []endpoints.Entry) {
	if d.moving == nil {
		d.moving = &moving{since: since, before: before}
	}
	d.nextLook = time.Now().Add(lookEvery)
}

// asks reports whether nginx asks for the servers of a service, and is told.
func (d *delivery) asks(s endpoints.Service) bool {
	upstream := render.UpstreamName(s.Protocol, s.Name)
	if !d.asked.known && !d.asked.upstreams[upstream] {
		upstream = olderUpstream(s)
	}
	_, told := d.told[upstream]
	return told && d.asked.upstreams[upstream]
}

// withServers is the entries of the current generation with the servers of cfg where
// nginx asks for them.
func (d *delivery) withServers(current []endpoints.Entry, cfg *render.Configuration) []endpoints.Entry {
	if current == nil || d.endpoints == nil {
		return current
	}
	entries := slices.Clone(current)
	latest := cfg.Entries // both are by name
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

// untaken is the upstreams of the current generation whose newest servers nginx has
// yet to take, and since when.
func untaken(e Endpoints, asked map[string]bool) map[string]time.Time {
	if e == nil {
		return nil
	}
	all := e.Untaken()
	maps.DeleteFunc(all, func(upstream string, _ time.Time) bool { return !asked[upstream] })
	return all
}

// restarted takes note of the master process: another one has no servers yet.
func (d *delivery) restarted(master nginx.Process) {
	if master == (nginx.Process{}) || master == d.master {
		return
	}
	if d.master != (nginx.Process{}) {
		d.endpoints.Restarted()
	}
	d.master = master
}

// tell gives endpoints the latest servers. That makes no new generation.
func (l *loop) tell() {
	if l.latest == nil || !l.delivery.tell(l.latest) {
		return
	}
	l.delivery.move(time.Now(), l.entries)
	l.entries = l.delivery.withServers(l.entries, l.latest)
	l.writeBootstrapLater()
}

// prepare tells endpoints what a generation asks for, whose files these are, before nginx
// is moved to it, so that nginx gets answers at once. It returns a function that writes the bootstrap servers,
// to be called beside the loop.
func (l *loop) prepare(g nginx.Generation, files map[string][]byte) func() {
	d := l.delivery
	if d.endpoints == nil {
		return func() {}
	}
	d.coming = askedBy(g, files)
	l.tell()
	if d.told == nil {
		return func() {}
	}
	servers := d.servers(nil)
	return func() {
		// The loop writes them again once nginx has moved, and tells what fails then.
		_, _ = l.server.WriteBootstrapServers(servers)
	}
}

// lookSoon has the loop look, because nginx has taken something.
func (l *loop) lookSoon(now time.Time) {
	if next := l.delivery.looked.Add(lookPause); now.Before(next) {
		l.delivery.nextLook = next
		return
	}
	l.lookAtServers(now)
}

// lookAtServers finds out what nginx has taken, notes when it has taken everything, and
// has it drop the bootstrap servers that it no longer needs.
func (l *loop) lookAtServers(now time.Time) {
	d := l.delivery
	if d.endpoints == nil {
		return
	}
	d.nextLook, d.looked = time.Time{}, now
	if d.told == nil || l.ctx.Err() != nil || d.moving == nil && len(d.bootstrap.read) == 0 {
		return // before nginx is told of anything there is nothing to take
	}
	if l.down != nil {
		d.nextLook = now.Add(lookEvery)
		return
	}
	if m := d.moving; m != nil {
		if untaken := untaken(d.endpoints, d.asked.upstreams); len(untaken) > 0 {
			d.nextLook = now.Add(lookEvery)
			l.reloadSilent(now, untaken)
		} else {
			d.moving, d.woken = nil, false
			if change := changes(m.before, l.entries); m.before != nil && change != noChange {
				l.record(Event{Kind: Moved, Generation: l.current.Number, Change: change}, m.since)
			}
		}
	}
	needless, later := d.needless(now)
	switch {
	case len(needless) > 0 && l.job.what == "" && !now.Before(l.governor.earliest()):
		l.dropBootstrapServers(now, needless)
	case len(needless) > 0 || later:
		d.nextLook = now.Add(lookEvery)
	}
}

// dropBootstrapServers has nginx drop the bootstrap servers of upstreams that it has
// asked for.
func (l *loop) dropBootstrapServers(now time.Time, needless []string) {
	l.delivery.bootstrap.dropped(now, needless)
	l.governor.reload(now)
	l.work("nginx has asked for its servers, and drops its bootstrap servers", func(ctx context.Context) func() {
		err := l.server.Reload(ctx)
		return func() {
			if err == nil {
				l.delivery.bootstrap.read = nil
				l.opts.Logger.Info("nginx has dropped bootstrap servers, since it has asked for newer ones", "generation", l.current.Number, "upstreams", len(needless))
			} else if !l.givenUp(err) {
				l.opts.Logger.Warn("nginx keeps its bootstrap servers", "error", err)
			}
			l.checks.epoch++
			l.checks.next = time.Now() // which tries again
		}
	})
}
