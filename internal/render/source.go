// Package render makes nginx's configuration of Consul's catalog and templates,
// with consul-template inside.
//
// A [Source] watches Consul, lets an [endpoints.Table] judge what it hears,
// executes all templates in one pass and gives the result as a value: nothing
// here touches a file that nginx reads. What can't be understood is a [Problem]
// and holds back itself alone, and so does a service that a template fails on or
// nginx refuses; a template that fails for any other reason means no
// configuration, so that the last good one stays.
//
// It runs a loop of its own over consul-template's Watcher, Brain and Template
// instead of its Runner, which gives up after five minutes without Consul, ends
// at the first template error, and can't be told what is complete.
package render

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul-template/template"
	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"

	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/probe"
	"lbctl/internal/resolver"
)

const (
	// firstAnswers is how long the first pass waits for services that Consul
	// lists but says nothing about, before it goes on without.
	firstAnswers = 10 * time.Second
	// answerPatience is how long an answer may take before it is worth a word.
	answerPatience = 2 * time.Second
	// templatesInterval is how often the templates directory is read.
	templatesInterval = time.Second
)

// Options says what a Source works with. Settings are required.
type Options struct {
	Settings Settings
	// Consul is how to reach Consul; default what the environment says in
	// CONSUL_HTTP_ADDR and the other variables of Consul's own commands.
	Consul *api.Config
	// TemplatesDir has templates that replace and add to the embedded ones;
	// default none.
	TemplatesDir string
	// Table judges what Consul says; default one without a snapshot.
	Table *endpoints.Table
	// Probe tunes how lbctl itself asks the table's instances.
	Probe probe.Options
	// Logger gets what changes; default none. consul-template's log, and with
	// it whatever else is written with package log, goes there too, so it
	// must not be slog's original default, which writes to package log.
	Logger *slog.Logger
}

// Configuration is a rendered configuration. Its receiver must not change it.
type Configuration struct {
	// Files are the contents by slash path relative to the generation's
	// directory; "nginx.conf" is the main one.
	Files map[string][]byte
	// Hash is the SHA-256 over names and contents, in hexadecimal.
	Hash string
	// Upstreams are those that Files have nginx ask for, with their servers, by name.
	Upstreams map[string][]resolver.Target
	// ByReload are the services whose servers nginx could ask for but that have
	// them in Files, and why. It is empty when nginx asks for none.
	ByReload map[string]string
	// Written are all other upstreams, with their servers, by name: an nginx that
	// serves an earlier configuration may ask for them.
	Written map[string][]resolver.Target
	// Entries are the services it was made from, by name.
	Entries []endpoints.Entry
	// Problems are what is wrong with the input, though this configuration is
	// good.
	Problems []Problem

	set     templateSet     // that it was made with
	crowded map[string]bool // services that have too many servers to ask for
}

// Source gives a Configuration whenever Consul or a template changes.
type Source struct {
	opts   Options
	table  *endpoints.Table
	names  *names
	consul *consul.Follower
	logger *slog.Logger

	updates  chan Configuration
	reloaded chan templateSet // by Reload

	// The loop's own.
	set      templateSet
	unheard  time.Time // when a service was first found without an answer
	observed bool
	started  time.Time // Run
	latest   Configuration
	memo     memo

	// failures gives template errors to Once.
	failures chan []Problem

	mu        sync.Mutex
	waiting   ledger // what a configuration waits for
	catalog   ledger // names in the catalog that can't be asked for
	services  ledger // what is wrong with services
	templates ledger // templates that failed
	files     ledger // what can't be read or written here
	missing   ledger // what templates asked for and have not got
}

// New checks the options and reads the templates. Consul is not asked yet.
func New(opts Options) (*Source, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	settings, err := opts.Settings.complete()
	if err != nil {
		return nil, err
	}
	opts.Settings = settings
	set, err := loadTemplates(opts.TemplatesDir)
	if err != nil {
		return nil, err
	}
	if opts.Table == nil {
		if opts.Table, err = endpoints.Open("", endpoints.Options{}); err != nil {
			return nil, err
		}
	}
	bridgeLog(opts.Logger)
	follower, err := consul.New(consul.Options{
		Consul:   opts.Consul,
		Table:    opts.Table,
		Reserved: settings.reserved(),
		Logger:   opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Source{
		opts:     opts,
		table:    opts.Table,
		names:    newNames(),
		consul:   follower,
		logger:   opts.Logger,
		updates:  make(chan Configuration, 1),
		reloaded: make(chan templateSet, 1),
		set:      set,
		failures: make(chan []Problem, 1),
	}, nil
}

// Updates gives each new Configuration; of several that were not taken, the
// latest.
func (s *Source) Updates() <-chan Configuration { return s.updates }

// Took says that nginx serves what was made of the entries.
func (s *Source) Took(entries []endpoints.Entry) { s.table.Took(entries) }

// Status is the state of Consul, the problems and the entries. It may be called at any
// time, also before Run.
func (s *Source) Status() Status {
	now := time.Now()
	problems := problemsOf(s.consul.Problems())
	s.mu.Lock()
	defer s.mu.Unlock()
	problems = slices.Concat(problems, s.waiting.problems, s.catalog.problems, s.services.problems, s.templates.problems, s.files.problems)
	for _, p := range s.missing.problems {
		if now.Sub(p.Since) > answerPatience {
			problems = append(problems, p)
		}
	}
	return Status{
		Consul:   s.consul.Status(),
		Problems: problems,
		Entries:  s.table.Entries(),
	}
}

// Reload reads again what an operator may have changed: the token file, the
// certificates and the templates; services that a template or nginx refused are tried
// again. The error says what can't be used: what was read before stays in use then.
// Any goroutine may call it.
func (s *Source) Reload() error {
	err := s.consul.Reload()
	if err != nil {
		err = fmt.Errorf("credentials for Consul: %w", err)
	}
	set, templatesErr := loadTemplates(s.opts.TemplatesDir)
	if templatesErr != nil {
		return errors.Join(err, templatesErr)
	}
	select { // of several sets the newest
	case <-s.reloaded:
	default:
	}
	select {
	case s.reloaded <- set:
	default: // another call was faster, and read the same
	}
	return err
}

// Run watches Consul until ctx is done; it returns nil then. It can run once.
func (s *Source) Run(ctx context.Context) error {
	s.started = time.Now()
	g, ctx := errgroup.WithContext(ctx)
	sets := make(chan templateSet, 1)
	g.Go(func() error { return s.consul.Run(ctx) })
	g.Go(func() error { return s.names.run(ctx) })
	g.Go(func() error { return probe.New(s.table, s.opts.Probe).Run(ctx) })
	g.Go(func() error { return s.table.Run(ctx, func(err error) { s.setFiles("endpoints", err) }) })
	if s.opts.TemplatesDir != "" {
		g.Go(func() error { return s.readTemplates(ctx, sets) })
	}
	g.Go(func() error {
		defer s.consul.Stop()
		return s.loop(ctx, sets)
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// loop owns what Consul says and the templates.
func (s *Source) loop(ctx context.Context, sets <-chan templateSet) error {
	if err := s.consul.Start(); err != nil {
		return err
	}
	s.setWaiting(waitingForCatalog)
	for {
		var deadline <-chan time.Time
		if at := s.nextDeadline(); !at.IsZero() {
			deadline = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case view := <-s.consul.Answers():
			s.consul.Receive(view)
		case <-s.consul.Changed():
		case s.set = <-sets:
			s.table.RetryRefused()
		case s.set = <-s.reloaded:
			s.table.RetryRefused()
		case <-s.table.Changed():
		case <-s.names.changed:
		case <-deadline:
		}
		// Many answers come at once: one pass is enough for them.
		for drained := false; !drained; {
			select {
			case view := <-s.consul.Answers():
				s.consul.Receive(view)
			default:
				drained = true
			}
		}
		s.follow()
		s.consul.LogFailing()
		s.table.SetTrust(time.Now(), s.consul.Trust())
		if !s.observe(ctx) {
			continue
		}
		if err := s.render(ctx); err != nil {
			return err
		}
	}
}

// nextDeadline is when time alone changes something: the table says so, or the
// first pass has waited enough. Zero is never.
func (s *Source) nextDeadline() time.Time {
	at := s.table.NextDeadline()
	if first := s.started.Add(firstAnswers); !s.observed && time.Now().Before(first) {
		at = first // to reconsider what is remembered
	}
	if !s.observed && !s.unheard.IsZero() {
		if first := s.unheard.Add(firstAnswers); at.IsZero() || first.Before(at) {
			return first
		}
	}
	return at
}

// follow has Consul asked for the services that are in its catalog.
func (s *Source) follow() {
	s.consul.Follow()
	problems := problemsOf(s.consul.NotBalanced())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logNew("service left out", s.catalog.set(time.Now(), problems))
}

var waitingForCatalog = []Problem{{Subject: "consul", Message: "Consul has not answered with its list of services yet"}}

// observe lets the table see the catalog, when it is complete; false when
// there is nothing to make a configuration of.
func (s *Source) observe(ctx context.Context) bool {
	seen, unheard, known := s.consul.Services()
	if !known {
		s.setWaiting(waitingForCatalog)
		return s.reconsider()
	}
	unconfirmed := s.consul.Unconfirmed()
	remembered, silent, known := s.consul.Recall(unheard, unconfirmed)
	if !known && !s.observed {
		if s.unheard.IsZero() {
			s.unheard = time.Now()
		}
		if time.Since(s.unheard) < firstAnswers {
			return s.reconsider()
		}
	}
	seen = append(seen, remembered...)
	s.table.SetUnconfirmed(unconfirmed)
	if len(seen) == 0 || s.table.Vanishing(seen) > 0 {
		s.consul.Look(ctx, s.lost(seen))
		s.table.SetTrust(time.Now(), s.consul.Trust())
	}
	entries := s.table.Observe(time.Now(), seen)
	s.observed = true
	var waiting []Problem
	if len(silent) > 0 {
		waiting = []Problem{{Subject: "consul", Message: fmt.Sprintf(
			"no answer yet about %d services, among them %q: is limits.http_max_conns_per_client of the Consul agent high enough?", len(silent), silent[0])}}
	}
	s.setWaiting(waiting)
	// An empty catalog for a token that may see nothing says nothing.
	return len(entries) > 0 || !s.table.Trust().Filtered
}

// reconsider lets the table look again at what it remembers, unless Consul may
// just be about to answer; false when there is nothing to make a configuration of.
func (s *Source) reconsider() bool {
	if time.Since(s.started) < firstAnswers {
		return false
	}
	departed := s.table.Reconsider(time.Now())
	// An nginx that asks for servers gets the remembered ones.
	return departed || s.opts.Settings.Resolver != "" && len(s.table.Entries()) > 0
}

func (s *Source) setWaiting(problems []Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.set(time.Now(), problems)
}

// lost names the services of which Consul has fewer instances in rotation than
// it had.
func (s *Source) lost(seen []endpoints.Service) []string {
	rotation := make(map[string]int, len(seen))
	for _, service := range seen {
		rotation[service.Name] = service.InRotation()
	}
	var names []string
	for _, e := range s.table.Entries() {
		if e.Service.InRotation()+len(e.Held) > rotation[e.Name] {
			names = append(names, e.Name)
		}
	}
	return names
}

// render executes the templates, and publishes what they give.
func (s *Source) render(ctx context.Context) error {
	began := time.Now()
	entries := s.table.Entries()
	if !s.names.want(hostNames(entries, s.memo.layout)) && s.latest.Hash == "" {
		return nil // the first configuration has all instances
	}
	r, problems := renderKnown(s.set, s.opts.Settings, entries, s.names, s.consul.Brain(), &s.memo)
	if err := s.consul.SetNative(r.needs, len(r.problems) == 0); err != nil {
		return err
	}
	good := len(r.problems) == 0 && len(r.missing) == 0
	if len(r.problems) > 0 && len(r.missing) == 0 && s.failedFor(entries, r.problems) {
		return nil
	}
	if good && s.opts.Settings.Resolver != "" {
		s.table.SetByReload(r.delivered.byReload)
	}

	now := time.Now()
	s.mu.Lock()
	s.logNew("service has a problem", s.services.set(now, problems))
	s.missing.set(now, missingProblems(r.missing))
	if len(r.missing) == 0 { // else they may have failed on empty answers only
		s.logNew("template failed", s.templates.set(now, r.problems))
	}
	c := r.configuration(entries, s.services.problems)
	c.set = s.set
	s.mu.Unlock()

	switch {
	case good:
	case len(r.missing) == 0:
		latest(s.failures, r.problems)
		return nil
	default:
		return nil
	}
	if !c.equal(s.latest) {
		s.latest = c
		latest(s.updates, c)
		s.logger.Debug("templates rendered", "took", time.Since(began))
	}
	return nil
}

// equal compares first what changes most.
func (c Configuration) equal(d Configuration) bool {
	return c.Hash == d.Hash && maps.EqualFunc(c.Upstreams, d.Upstreams, resolver.SameTargets) && reflect.DeepEqual(c, d)
}

// latest puts a value in a channel with room for one. A value that is still in the
// channel is replaced.
func latest[T any](c chan T, value T) {
	select {
	case <-c:
	default:
	}
	c <- value
}

func (s *Source) logNew(message string, news []Problem) {
	for _, p := range news {
		s.logger.Warn(message, "subject", p.Subject, "problem", p.Message)
	}
}

func missingProblems(queries []string) []Problem {
	var problems []Problem
	for _, query := range queries {
		problems = append(problems, Problem{
			Subject: "templates",
			Message: fmt.Sprintf("a template waits for Consul's answer to %s: is it there, and may the token read it?", query),
		})
	}
	return problems
}

// hostNames is the addresses of instances that are host names, but for those that an
// earlier layout is known to need no look-up for.
func hostNames(entries []endpoints.Entry, layout *builder) []string {
	var hosts []string
	for _, e := range entries {
		if layout != nil && layout.has(e) {
			continue
		}
		for _, i := range e.Rotation() {
			if _, err := netip.ParseAddr(i.Address); err != nil {
				hosts = append(hosts, i.Address)
			}
		}
	}
	return hosts
}

// renderEntries looks up the instances' host names and executes the templates.
func renderEntries(ctx context.Context, set templateSet, settings Settings, entries []endpoints.Entry, names *names, brain *template.Brain, last *memo) (rendering, []Problem) {
	names.lookUp(ctx, hostNames(entries, last.layout))
	return renderKnown(set, settings, entries, names, brain, last)
}

// renderKnown executes the templates with what is known of host names, for all
// entries or for some. The problems are those of the services; they and the
// rendering's own are not dated yet. What is in last is used again where it fits, and
// replaced where it doesn't. Templates don't see what was refused and has nothing to go
// back to.
func renderKnown(set templateSet, settings Settings, entries []endpoints.Entry, names *names, brain *template.Brain, last *memo) (rendering, []Problem) {
	seen := entries
	gone := func(e endpoints.Entry) bool { return e.Refused && !e.Served() }
	if slices.ContainsFunc(seen, gone) {
		seen = slices.DeleteFunc(slices.Clone(seen), gone)
	}
	catalog, laidOut := newCatalog(seen, settings, names.addresses, last.layout, last.crowded)
	if !last.fits(set, catalog) {
		r := execute(set, functions(catalog, settings), brain)
		if len(r.problems) == 0 {
			if err := checkFiles(r.files); err != nil {
				r.problems = []Problem{{Subject: "template " + mainTemplate, Message: err.Error()}}
			}
		}
		r.hash = hash(r.files)
		*last = memo{set: set, catalog: catalog, rendering: r}
	}
	laidOut.before, laidOut.earlier = nil, nil // each would keep the one before it
	last.layout, last.crowded = laidOut, laidOut.crowded
	r := last.rendering
	r.delivered = laidOut.deliver(last.catalog.reads.asked)
	return r, append(serviceProblems(entries), laidOut.problems...)
}

// serviceProblems is what the table and the parser found.
func serviceProblems(entries []endpoints.Entry) []Problem {
	var problems []Problem
	for _, e := range entries {
		reason := ""
		if e.Expired || slices.Contains([]endpoints.State{endpoints.Panic, endpoints.Held, endpoints.Quarantined}, e.State) {
			reason = string(e.State) + ": " + e.Reason
			problems = append(problems, Problem{Subject: serviceSubject(e.Name), Message: reason})
		}
		for _, message := range e.Problems {
			if !strings.Contains(reason, message) { // it is the reason
				problems = append(problems, Problem{Subject: serviceSubject(e.Name), Message: message})
			}
		}
	}
	return problems
}

// readTemplates sends the set of templates whenever it has changed on disk.
func (s *Source) readTemplates(ctx context.Context, sets chan<- templateSet) error {
	last := s.set
	ticker := time.NewTicker(templatesInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		set, err := loadTemplates(s.opts.TemplatesDir)
		if err != nil {
			err = fmt.Errorf("%w; the templates that were read last are used", err)
		}
		s.setFiles("templates", err)
		if err != nil || maps.Equal(set, last) {
			continue
		}
		s.logger.Info("templates changed", "directory", s.opts.TemplatesDir)
		last = set
		select {
		case <-ctx.Done():
			return ctx.Err()
		case sets <- set:
		}
	}
}

// setFiles says how it went with the files of subject.
func (s *Source) setFiles(subject string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	problems := slices.DeleteFunc(slices.Clone(s.files.problems), func(p Problem) bool { return p.Subject == subject })
	if err != nil {
		problems = append(problems, Problem{Subject: subject, Message: err.Error()})
	}
	s.logNew("files", s.files.set(time.Now(), problems))
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
