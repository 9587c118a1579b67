package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lbctl/internal/access"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/routing"
)

// loop is the state that one goroutine owns. Slow work, which is everything that uses the
// disk or asks nginx, runs in another goroutine. That goroutine returns a function, which
// the loop calls.
type loop struct {
	opts     Options
	source   Source
	server   Server
	history  *history.Log
	commands <-chan func(*loop)
	storePin func(*Pin) error // writes the pin to disk; nil removes it
	show     func(view)       // passes the state to Status
	counted  *counted
	ctx      context.Context // Run's
	began    time.Time       // when this process began

	current nginx.Generation
	since   time.Time // when nginx began to serve current
	// policyIndex and accessIndex are those of the configuration that nginx serves; 0: not known.
	policyIndex, accessIndex uint64
	files                    map[string][]byte  // the right content of current's files; nil: not known
	entries                  []endpoints.Entry  // the entries that current was made from; nil: not known
	networks                 *access.Networks   // the rules about networks that current was made with, if entries are known
	listeners                []routing.Listener // of current; nil: not known
	// delivered has the entries whose servers endpoints got last. At first they are those
	// of the snapshot, which an earlier lbctl delivered; nil: there is none.
	delivered []endpoints.Entry
	summaries summaryCache
	latest    *render.Configuration // the newest from the source; nil: none yet
	pin       *Pin

	delivery *delivery
	settle   settle
	governor governor

	awaiting awaiting // what latest has of Consul and current lacks

	failure *failure // latest could not be applied
	drifted *failure // drift could not be corrected
	down    *failure // nginx does not answer
	// masterGone: nginx's workers have served without a master process.
	masterGone *failure
	// consulAway is since when Consul has been away, as the history has it; zero: it is not.
	consulAway time.Time
	last       *LastApply

	job    job
	checks checks
	counts counts
}

// job is the work in another goroutine that changes nginx; there is at most one.
type job struct {
	what    string // description; "" if nothing runs
	hash    string // hash of the configuration that is being applied, "" for other work
	results chan func()
}

// checks is the state of the regular check of what nginx serves.
type checks struct {
	running bool
	next    time.Time
	began   time.Time // when the last check began whose result counted
	epoch   int       // increases when the result of a running check becomes outdated
	results chan func()
}

// counts is the state of counting old workers.
type counts struct {
	running bool
	results chan int
}

// failure is a failed action, with the time of the next attempt.
type failure struct {
	hash     string
	err      error
	since    time.Time
	attempts int
	next     time.Time
	// culprits names what caused it, see culpritList. The source will deliver a configuration
	// without their changes, so other services are not affected.
	culprits string
}

// load makes a loop with the state that an earlier process left on disk.
func (c *Controller) load(ctx context.Context) (*loop, error) {
	if err := c.history.Load(c.opts.Logger); err != nil {
		return nil, err
	}
	current, err := c.server.Current()
	if err != nil {
		return nil, fmt.Errorf("find the current generation: %w", err)
	}
	pin, err := c.opts.loadPin(current.Number)
	if err != nil {
		return nil, err
	}
	l := &loop{
		opts:      c.opts,
		source:    c.source,
		server:    c.server,
		history:   c.history,
		commands:  c.commands,
		storePin:  c.storePin,
		show:      c.setView,
		counted:   &c.counted,
		ctx:       ctx,
		began:     c.started,
		pin:       pin,
		delivered: c.restored,
		delivery:  newDelivery(c.opts.Endpoints, c.opts.Marks),
		settle:    settle{min: c.opts.SettleMin, max: c.opts.SettleMax},
		governor:  governor{max: c.opts.PauseMax},
		job:       job{results: make(chan func(), 1)},
		checks:    checks{results: make(chan func(), 1)},
		counts:    counts{results: make(chan int, 1)},
	}
	l.become(current, filesOf(l.server, current.Number), nil)
	if !current.Served.IsZero() {
		l.since = current.Served
		l.counted.succeed(current.Served)
	}
	switch {
	case pin == nil || pin.Generation == current.Number:
	case current.Number == 0:
		l.opts.Logger.Warn("the pinned generation is no longer on disk, and no other is: following Consul", "pinned", pin.Generation)
		if err := l.storePin(nil); err != nil {
			return nil, err
		}
		l.pin = nil
	default:
		// The last process ended during a rollback: the first check completes it.
		if g, ok := findGeneration(l.server, pin.Generation); ok {
			l.become(g, filesOf(l.server, g.Number), nil)
		} else {
			l.opts.Logger.Warn("the pinned generation is no longer on disk: the current one is pinned instead", "pinned", pin.Generation, "generation", current.Number)
			l.pin = &Pin{Generation: current.Number, Since: pin.Since}
		}
	}
	return l, nil
}

func (l *loop) run() {
	l.opts.Logger.Info("controller started", "generation", l.current.Number, "frozen", l.pin != nil)
	l.history.Add(history.Event{Time: l.began, Kind: history.Started, Generation: l.current.Number, Reason: "lbctl " + l.opts.Version})
	updates, ending := l.source.Updates(), l.ctx.Done()
	var fetched <-chan struct{}
	if l.opts.Endpoints != nil {
		fetched = l.opts.Endpoints.Fetched()
	}
	for {
		now := time.Now()
		if ending != nil {
			l.start(now)
		} else if l.job.what == "" && !l.checks.running && !l.counts.running && !l.delivery.bootstrap.writing {
			return
		}
		l.publish()

		commands := l.commands
		if l.job.what != "" || ending == nil {
			commands = nil
		}
		var timer <-chan time.Time
		if wake := l.wake(); ending != nil && !wake.IsZero() {
			timer = time.After(wake.Sub(now))
		}
		select {
		case <-ending:
			ending, updates = nil, nil
			l.history.Add(history.Event{Time: time.Now(), Kind: history.Stopped, Generation: l.current.Number, Reason: "lbctl " + l.opts.Version})
		case cfg, ok := <-updates:
			if !ok {
				updates = nil
				continue
			}
			l.update(cfg)
		case do := <-commands:
			do(l)
		case finish := <-l.job.results:
			l.job.what, l.job.hash = "", ""
			finish()
		case finish := <-l.checks.results:
			l.checks.running = false
			finish()
		case <-fetched:
			l.checkFetchedSoon(time.Now())
		case written := <-l.delivery.bootstrap.written:
			l.delivery.bootstrap.wrote(written)
			l.writeBootstrap()
		case old := <-l.counts.results:
			l.counts.running = false
			l.governor.count(time.Now(), old)
		case <-timer:
		}
	}
}

// start starts the work that is due.
func (l *loop) start(now time.Time) {
	if !l.delivery.nextFetchCheck.IsZero() && !now.Before(l.delivery.nextFetchCheck) {
		l.checkFetched(now)
	}
	if l.job.what != "" {
		return
	}
	if at, ok := l.due(); ok && !now.Before(at) && !l.counts.running {
		if l.governor.mustCount(now) {
			l.counts.begin(l.server)
		} else if !now.Before(l.governor.earliest()) {
			l.apply(now)
			return
		}
	}
	if !l.checks.running && !now.Before(l.checks.next) {
		l.check(now)
	}
}

// wake returns when start has work to do if nothing else happens.
func (l *loop) wake() time.Time {
	var next time.Time
	soonest := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if !l.delivery.nextFetchCheck.IsZero() {
		soonest(l.delivery.nextFetchCheck)
	}
	if l.job.what == "" {
		if at, ok := l.due(); ok && !l.counts.running {
			switch {
			case time.Now().Before(at):
				soonest(at)
			default: // old workers delay the apply; they may end at any time
				soonest(l.governor.earliest())
				soonest(l.governor.counted.Add(countedFresh))
			}
		}
		if !l.checks.running {
			soonest(l.checks.next)
		}
	}
	return next
}

// due returns when the latest configuration is due to be applied, or false if it is not to
// be applied. Old workers may delay it further.
func (l *loop) due() (time.Time, bool) {
	if l.pin != nil || l.latest == nil || l.latest.Hash == l.current.Hash {
		return time.Time{}, false
	}
	at := l.settle.due()
	if l.failure != nil {
		at = l.failure.next
	}
	if !l.governor.began.IsZero() {
		if least := l.governor.began.Add(reloadPause); at.Before(least) {
			at = least
		}
	}
	return at, true
}

// begin starts to count old workers in another goroutine.
func (c *counts) begin(server Server) {
	c.running = true
	results := c.results
	go func() {
		processes, err := server.Processes()
		if err != nil {
			results <- 0 // nginx is not running, so it has no old workers
			return
		}
		results <- len(processes.OldWorkers)
	}()
}

// update handles a new configuration from the source.
func (l *loop) update(cfg render.Configuration) {
	now := time.Now()
	if cfg.Entries == nil {
		cfg.Entries = []endpoints.Entry{} // nil is "not known" here
	}
	l.await(cfg)
	if l.latest == nil || l.latest.Hash != cfg.Hash {
		if l.failure != nil {
			l.failure = nil
			l.settle.hurry() // the failed apply changed nothing, so don't wait after it
		}
		l.settle.change(now)
	}
	var before []endpoints.Entry
	if l.latest != nil {
		before = l.latest.Entries
	}
	l.recordEjections(now, before, cfg.Entries)
	l.recordStates(now, before, cfg.Entries)
	l.latest = &cfg
	if cfg.Hash == l.current.Hash {
		l.delivery.asked = askedIn(&cfg) // a generation of an older lbctl may lack its upstreams
	}
	l.setServers(cfg.Seen)
	if cfg.Hash == l.current.Hash {
		l.files, l.entries, l.networks, l.listeners = cfg.Files, cfg.Entries, cfg.Networks, cfg.Listeners
		l.source.NginxAccepted(cfg.Entries)
		if l.job.hash == "" {
			l.settle.reset()
		}
	}
}

// await notes what a new configuration has of Consul, and whether it replaces one that nginx
// will never get.
func (l *loop) await(cfg render.Configuration) {
	l.counted.coalesce(cfg.Replaced)
	if old := l.latest; old != nil && old.Hash != cfg.Hash && old.Hash != l.current.Hash && old.Hash != l.job.hash && l.failure == nil {
		l.counted.coalesce(1)
	}
	switch {
	case cfg.Hash == l.job.hash: // it is being applied already
	case cfg.Hash == l.current.Hash && l.job.hash == "":
		l.awaiting.take() // nginx serves it already
	default:
		l.awaiting.add(cfg.Seen)
	}
}

// countReload counts a reload that began at a time and ended with err now, unless it did not
// begin because lbctl ends. Any goroutine may call it.
func (l *loop) countReload(reason ReloadReason, began time.Time, err error) {
	if !l.canceled(err) {
		l.counted.reload(reason, began, err)
	}
}

// work runs do in another goroutine. When the daemon ends, ctx cancels do; the Server
// guarantees that work which has already changed something is completed.
func (l *loop) work(what string, do func(context.Context) func()) {
	l.job.what = what
	l.checks.epoch++
	go func() {
		ctx, cancel := context.WithTimeout(l.ctx, applyTimeout)
		defer cancel()
		l.job.results <- do(ctx)
	}()
}

// apply moves nginx to the latest configuration.
func (l *loop) apply(now time.Time) {
	cfg := *l.latest
	note := nginx.Note{Hash: cfg.Hash, Reason: "Consul or a template changed", Change: l.change()}
	note.Services, note.Instances = count(cfg.Entries)
	note.Upstreams, note.ServiceNames = askedIn(&cfg).names(), servedNames(cfg.Entries)
	switch {
	case l.failure != nil:
		note.Reason = fmt.Sprintf("tried again, attempt %d", l.failure.attempts+1)
	case l.current.Number == 0:
		note.Reason = "the first configuration"
	}
	reason := ReloadChange
	if l.failure != nil {
		reason = ReloadRetry
	}
	seen := l.awaiting.take()
	l.settle.start(now)
	l.governor.reload(now)
	l.job.hash = cfg.Hash
	servers := l.delivery.servers(&cfg)
	l.work("nginx is being given the new configuration", func(ctx context.Context) func() {
		if l.opts.Endpoints != nil {
			// If the file of one upstream can't be written, the other services don't wait
			// for it: the loop writes it again, and reports the error.
			if _, err := l.server.WriteBootstrapServers(servers); err != nil {
				l.countReload(reason, now, err)
				a := applyResult{err: err, stored: readCurrent(l.server), seen: seen}
				return func() { l.finish(cfg, note, now, a) }
			}
		}
		a := applyResult{seen: seen}
		a.generation, a.err = l.server.Apply(ctx, cfg.Files, note)
		l.countReload(reason, now, a.err)
		if a.err == nil && !seen.IsZero() {
			l.counted.convergence.Add(time.Since(seen))
		}
		if a.err != nil {
			a.culprits = findCulprits(ctx, l.source, l.server, cfg, a.err)
			a.orphans = errors.Is(a.err, nginx.ErrNotRunning) && l.orphansServe()
			a.stored = readCurrent(l.server)
		}
		return func() { l.finish(cfg, note, now, a) }
	})
}

// applyResult is the result of an apply.
type applyResult struct {
	generation nginx.Generation
	err        error
	orphans    bool            // after ErrNotRunning: workers serve without their master process
	culprits   render.Culprits // what caused err
	stored     stored          // the generation on disk after err
	seen       time.Time       // when the oldest answer of Consul came that was to be applied
}

func (l *loop) finish(cfg render.Configuration, note nginx.Note, began time.Time, a applyResult) {
	g, err, culprits, now := a.generation, a.err, a.culprits, time.Now()
	before := l.current.Number
	if l.latest.Hash != cfg.Hash {
		l.settle.resume(now)
	}
	if err == nil {
		left := departures(l.entries, cfg.Entries)
		l.become(g, cfg.Files, cfg.Entries)
		l.networks, l.listeners = cfg.Networks, cfg.Listeners
		l.policyIndex, l.accessIndex = cfg.PolicyIndex, cfg.AccessIndex
		l.entries = l.delivery.withServers(l.entries, l.latest) // latest may be newer than cfg
		l.source.NginxAccepted(cfg.Entries)
		l.failure, l.drifted, l.down = nil, nil, nil
		l.counted.succeed(now)
		l.record(history.Event{Kind: history.Applied, Generation: g.Number, From: before, Reason: note.Reason, Change: note.Change, Left: left}, began)
		return
	}
	if l.canceled(err) {
		return
	}
	l.adopt(a.stored)
	switch kindOf(err) {
	case history.Rejected, history.Failed: // nginx was not reloaded
		l.governor.undo()
	}
	event := history.Event{Kind: kindOf(err), Generation: l.current.Number, From: before, Reason: err.Error(), Change: note.Change}
	blamed := culpritList(culprits)
	if blamed != "" {
		event.Reason = blamed + ": " + event.Reason
	}
	if errors.Is(err, nginx.ErrNotRunning) && l.current.Hash == cfg.Hash {
		// Nothing is wrong with the configuration: nginx reads it when it starts.
		l.files, l.entries, l.networks, l.listeners = cfg.Files, cfg.Entries, cfg.Networks, cfg.Listeners
		l.failure = nil
		missing := &l.down
		if a.orphans {
			event.Kind, missing = history.MasterGone, &l.masterGone
		}
		if *missing == nil {
			*missing = &failure{since: now}
		}
		(*missing).err, (*missing).attempts = err, 2 // err says more than the errors of later checks
		l.record(event, began)
		return
	}
	l.awaiting.add(a.seen) // nginx gets it with the next attempt
	again := l.failure
	if again == nil || again.hash != cfg.Hash {
		again = &failure{hash: cfg.Hash, since: now}
	}
	known := again.err != nil && kindOf(again.err) == event.Kind
	if blamed != "" {
		known = culprits.Again
	}
	again.err, again.culprits = err, blamed
	again.delay(now, l.opts)
	l.last = &LastApply{At: began, TookSeconds: now.Sub(began).Seconds(), Generation: l.current.Number, Outcome: event.Kind}
	if l.latest.Hash == cfg.Hash {
		l.failure = again
	} else {
		l.settle.hurry()
	}
	if known {
		l.opts.Logger.Debug("configuration failed again", "attempts", again.attempts, "reason", err)
		return // the history records a repeated failure once
	}
	l.record(event, began)
}

// canceled reports whether work failed only because the daemon is ending.
func (l *loop) canceled(err error) bool {
	return l.ctx.Err() != nil && errors.Is(err, context.Canceled)
}

// delay sets the time of the next attempt.
func (f *failure) delay(now time.Time, opts Options) {
	pause := opts.RetryMin << min(f.attempts, 16)
	f.attempts++
	f.next = now.Add(min(pause, opts.RetryMax))
}

// become makes g the current generation. files is nil if they can't be read, and entries
// is nil if the entries that g was made from are not known.
func (l *loop) become(g nginx.Generation, files map[string][]byte, entries []endpoints.Entry) {
	l.current, l.files, l.entries, l.networks, l.listeners = g, files, entries, nil, nil
	l.policyIndex, l.accessIndex = 0, 0
	l.since = time.Now()
	l.checks.epoch++
	l.checks.next = time.Now()
	if g.Number == 0 {
		return
	}
	d := l.delivery
	if d.endpoints == nil {
		return
	}
	d.ask(askedBy(g, l.files), l.since)
	if len(d.asked.upstreams) > 0 && d.answers != nil { // nginx fetches the servers of all upstreams after a reload
		d.moving = nil
		d.move(moving{since: l.since, before: entries})
	}
	d.nextFetchCheck = time.Now().Add(fetchCheckEvery)
	l.setServers(time.Time{})
	l.writeBootstrapLater()
}

// change describes what applying latest would change.
func (l *loop) change() string {
	if l.entries == nil {
		services, instances := l.summaries.count(l.latest.Entries)
		now := fmt.Sprintf("%s, %s", plural(services, "service"), plural(instances, "instance"))
		switch {
		case l.current.Number == 0:
			return now
		case services == l.current.Services && instances == l.current.Instances:
			return noChange // as far as the numbers tell
		}
		return fmt.Sprintf("%s; before: %s, %s", now, plural(l.current.Services, "service"), plural(l.current.Instances, "instance"))
	}
	text := l.summaries.changes(l.entries, l.latest.Entries)
	switch rules := l.summaries.rules(l.networks, l.latest.Networks); {
	case rules == "":
		return text
	case text == noChange:
		return rules
	default:
		return text + ", " + rules
	}
}

// record adds an event to the history and logs it. Its time is now; its duration is the
// time since began.
func (l *loop) record(e history.Event, began time.Time) {
	e.Time = time.Now()
	e.TookSeconds = e.Time.Sub(began).Seconds()
	switch e.Kind {
	case history.NginxUp, history.NginxDown, history.MasterGone, history.MasterBack, history.Drift, history.Resumed, history.Moved:
	default:
		if e.Kind == history.Applied || e.Kind == history.RolledBackByOperator && e.From != e.Generation {
			l.since = e.Time // the history and the status have one time for it
		}
		l.last = &LastApply{At: began, TookSeconds: e.TookSeconds, Generation: e.Generation, Outcome: e.Kind}
	}
	l.history.Add(e)
	e.Log(l.opts.Logger)
}
