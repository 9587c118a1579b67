package controller

import (
	"context"
	"fmt"
	"maps"
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
	// Taken fires when nginx has taken the newest servers of an upstream.
	Taken() <-chan struct{}
	// Restarted says that nginx is a new one, which has no servers yet.
	Restarted()
}

// Bounds of what nginx may take to ask.
const (
	// lookEvery is how often the loop looks whether nginx has taken what it has to.
	lookEvery = time.Second
	// lookPause is between two looks at least: when nginx starts with a thousand
	// upstreams, it takes them one by one.
	lookPause = 50 * time.Millisecond
	// askPatience is how long nginx may take before it is worth a word: it asks
	// again within five seconds, or within eleven after lbctl was away.
	askPatience = 15 * time.Second
)

// moving is servers on their way to nginx by its questions.
type moving struct {
	since  time.Time
	before []endpoints.Entry // what nginx served; nil: not known
}

// serve has nginx told of servers that it asks for, which is no new generation.
func (l *loop) serve(cfg *render.Configuration) {
	if l.opts.Endpoints == nil {
		return
	}
	// What the current generation asks for and cfg doesn't have goes on as it is.
	all := maps.Clone(cfg.Upstreams)
	for name, targets := range l.upstreams {
		if _, ok := all[name]; !ok && l.asked[resolver.Host(name)] {
			all[name] = targets
		}
	}
	if l.upstreams != nil && maps.EqualFunc(all, l.upstreams, resolver.SameTargets) {
		return
	}
	now := time.Now()
	if l.moving == nil {
		l.moving = &moving{since: now, before: l.entries}
	}
	l.upstreams = all
	l.opts.Endpoints.Set(all)
	l.entries = l.withServers(cfg)
	l.nextLook = now.Add(lookEvery)
	l.seedLater()
}

// withServers is the entries of the current generation with the servers of cfg
// where nginx asks for them.
func (l *loop) withServers(cfg *render.Configuration) []endpoints.Entry {
	if l.entries == nil {
		return nil
	}
	entries := slices.Clone(l.entries)
	latest := cfg.Entries // both are by name
	for n := range entries {
		e := &entries[n]
		for len(latest) > 0 && latest[0].Name < e.Name {
			latest = latest[1:]
		}
		if len(latest) == 0 {
			break
		}
		if latest[0].Name != e.Name || !latest[0].Spec.Equal(e.Spec) {
			continue
		}
		if _, byReload := cfg.ByReload[e.Name]; !byReload {
			*e = latest[0]
		}
	}
	return entries
}

// tells reports whether nginx is told of all servers that it asks for. It is not
// while Consul has yet to answer a process that has just started.
func (l *loop) tells() bool {
	told := 0
	for name := range l.upstreams {
		if l.asked[resolver.Host(name)] {
			told++
		}
	}
	return told == len(l.asked)
}

// untaken is the upstreams of the current generation whose newest servers nginx
// has yet to take.
func (c *Controller) untaken(asked map[string]bool) map[string]time.Time {
	if c.opts.Endpoints == nil {
		return nil
	}
	untaken := c.opts.Endpoints.Untaken()
	maps.DeleteFunc(untaken, func(name string, _ time.Time) bool { return !asked[resolver.Host(name)] })
	return untaken
}

// lookSoon has the loop look, for nginx has taken something.
func (l *loop) lookSoon(now time.Time) {
	if next := l.looked.Add(lookPause); now.Before(next) {
		l.nextLook = next
		return
	}
	l.lookAtServers(now)
}

// lookAtServers finds out whether nginx has taken all servers, notes that, and has
// it forget those it only started with.
func (l *loop) lookAtServers(now time.Time) {
	if l.opts.Endpoints == nil {
		return
	}
	l.nextLook, l.looked = time.Time{}, now
	if l.moving == nil && !l.seeded || l.ctx.Err() != nil {
		return
	}
	if len(l.untaken(l.asked)) > 0 || l.down != nil {
		l.nextLook = now.Add(lookEvery)
		return
	}
	if l.upstreams == nil {
		return // whoever asks is told nothing yet, as with Consul away since the start
	}
	if m := l.moving; m != nil {
		l.moving = nil
		if change := changes(m.before, l.entries); m.before != nil && change != noChange {
			l.record(Event{Kind: Moved, Generation: l.current.Number, Change: change}, m.since)
		}
	}
	switch {
	case !l.seeded || !l.tells():
	case l.busy == "" && !now.Before(l.governor.earliest()):
		l.unseed(now)
	default:
		l.nextLook = now.Add(lookEvery)
	}
}

// unseed has nginx drop the servers it started with, now that it has asked.
func (l *loop) unseed(now time.Time) {
	l.seeded = false
	l.governor.reload(now)
	l.work("nginx has asked for its servers, and drops those it started with", func(ctx context.Context) func() {
		err := l.server.Reload(ctx)
		return func() {
			if err == nil {
				l.opts.Logger.Info("nginx has asked for all its servers, and dropped those it started with", "generation", l.current.Number)
			} else if !l.givenUp(err) {
				l.opts.Logger.Warn("nginx keeps servers that it started with", "error", err)
			}
			l.epoch++
			l.nextCheck = time.Now() // which tries again
		}
	})
}

// seedLater has the seeds written beside the loop.
func (l *loop) seedLater() {
	l.seedsDue = true
	l.writeSeeds()
}

func (l *loop) writeSeeds() {
	if !l.seedsDue || l.seeding || l.upstreams == nil {
		return // without any knowledge, those of an earlier process are better than none
	}
	l.seedsDue, l.seeding = false, true
	seeds := l.seeds(nil)
	go func() { l.seedsWritten <- l.server.Seed(seeds) }()
}

// seeds is with which servers nginx is to start: those of the upstreams that the
// current generation has it ask for, and those of cfg, if it is not nil.
func (l *loop) seeds(cfg *render.Configuration) map[string]string {
	seeds := map[string]string{}
	for name, targets := range l.upstreams {
		if l.asked[resolver.Host(name)] {
			seeds[name] = l.seedText.of(name, targets, l.opts.Marks)
		}
	}
	if cfg != nil {
		for name, targets := range cfg.Upstreams {
			seeds[name] = l.seedText.of(name, targets, l.opts.Marks)
		}
	}
	return seeds
}

// failedSince is a failure that lasts, or one that begins; nil when err is nil.
func failedSince(before *failure, err error) *failure {
	switch {
	case err == nil:
		return nil
	case before == nil:
		return &failure{err: err, since: time.Now()}
	default:
		return &failure{err: err, since: before.since}
	}
}

// seedTexts are the lines of seeds that were made last, by upstream.
type seedTexts map[string]seedText

type seedText struct {
	targets []resolver.Target
	text    string
}

func (s seedTexts) of(name string, targets []resolver.Target, marks nginx.Marks) string {
	if known, ok := s[name]; ok && resolver.SameTargets(known.targets, targets) {
		return known.text
	}
	var b strings.Builder
	for _, t := range targets {
		fmt.Fprintf(&b, "server %s weight=%d %s;\n", t.Addr, t.Weight, marks)
	}
	s[name] = seedText{targets, b.String()}
	return b.String()
}

// EndpointsStatus is how changes of servers reach nginx.
type EndpointsStatus struct {
	// By is "dns" when nginx asks for the servers of its upstreams, so that a
	// change of them is no reload, else "reload".
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"` // why by reload
	// Upstreams is how many nginx asks for; Untaken are those whose newest servers
	// it has yet to fetch, or has fetched but not certainly taken.
	Upstreams int      `json:"upstreams"`
	Untaken   []string `json:"untaken,omitempty"`
	// ByReload are the services that nginx doesn't ask for though it could.
	ByReload []ByReload `json:"by_reload,omitempty"`
}

// ByReload is a service whose servers are written into nginx's files.
type ByReload struct {
	Service string `json:"service"`
	Reason  string `json:"reason"`
}

func (v view) endpoints(untaken map[string]time.Time, note string) EndpointsStatus {
	if v.asked == nil {
		return EndpointsStatus{By: "reload", Reason: note}
	}
	s := EndpointsStatus{By: "dns", Upstreams: len(v.asked), Untaken: slices.Sorted(maps.Keys(untaken))}
	for _, service := range slices.Sorted(maps.Keys(v.byReload)) {
		s.ByReload = append(s.ByReload, ByReload{service, v.byReload[service]})
	}
	return s
}

// notAsked says that nginx has not asked for some servers for too long.
func notAsked(untaken map[string]time.Time, now time.Time) *render.Problem {
	var late []string
	var since time.Time
	for name, at := range untaken {
		if now.Sub(at) < askPatience {
			continue
		}
		late = append(late, name)
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	if len(late) == 0 {
		return nil
	}
	slices.Sort(late)
	return &render.Problem{
		Subject: "nginx",
		Message: fmt.Sprintf("it has not fetched the newest servers of %s, among them %q: do its templates name the resolver that lbctl answers at?", plural(len(late), "upstream"), late[0]),
		Since:   since,
	}
}
