// Package render makes nginx's configuration from Consul's catalog and templates, using
// consul-template.
//
// A [Source] watches Consul, passes what Consul answers to an [endpoints.Table], executes
// all templates in one pass and returns the result as a value; it doesn't write any file
// that nginx reads. Invalid input is reported as a [Problem], and affects only the service
// that it belongs to. The same is true for a service that makes a template fail or that
// nginx refuses. If a template fails for any other reason, there is no new configuration,
// and the last good one stays.
//
// The package has its own loop over consul-template's Watcher, Brain and Template. It
// doesn't use consul-template's Runner, because that gives up after five minutes without
// Consul, ends at the first template error, and offers no way to say whether the data is
// complete.
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

	"lbctl/internal/access"
	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/disk"
	"lbctl/internal/endpoints"
	"lbctl/internal/probe"
	"lbctl/internal/resolver"
	"lbctl/internal/routing"
)

const (
	// firstAnswers is how long the first pass waits for Consul's answers about the
	// services that it lists, before it goes on without them.
	firstAnswers = 10 * time.Second
	// answerPatience is how long an answer may take before Status reports it as missing.
	answerPatience = 2 * time.Second
	// templatesInterval is how often the templates directory is read.
	templatesInterval = time.Second
	// certificatesInterval is how often the directory with certificates is read.
	certificatesInterval = time.Second
)

// Options configure a Source. Settings is required.
type Options struct {
	Settings Settings
	// Consul says how to reach Consul. The default comes from CONSUL_HTTP_ADDR and the
	// other environment variables of Consul's own commands.
	Consul *api.Config
	// Policies is the prefix of the keys of the operator's policies in Consul's KV store: "lb/".
	// Empty means that there are none.
	Policies string
	// TemplatesDir has templates that replace the embedded ones, or add to them. Empty
	// means none.
	TemplatesDir string
	// Certificates are those of nginx's listeners with TLS, and those that policies name; default
	// none. nginx then reads the files of policies itself, and not again when they are renewed.
	Certificates *certificates.Store
	// Table decides which instances are in rotation; default one without a snapshot.
	Table *endpoints.Table
	// Access has the rules about networks; default none.
	Access *access.Keeper
	// AccessKeys is the prefix of the keys of these rules in Consul's KV store: "lb-access/".
	// Empty means that Access stays as it is.
	AccessKeys string
	// Probe configures lbctl's own health checks of the table's instances.
	Probe probe.Options
	// Logger gets messages about changes; default none. It also gets the output of package
	// log, which consul-template uses, so it must not be slog's original default, which
	// writes to package log.
	Logger *slog.Logger
}

// Configuration is a rendered configuration. It must not be changed.
type Configuration struct {
	// Files has the contents, by path relative to the generation's directory, with
	// slashes. "nginx.conf" is the main file.
	Files map[string][]byte
	// Hash is the SHA-256 over names and contents, in hexadecimal.
	Hash string
	// Upstreams has the servers of the upstreams that nginx asks for, by upstream.
	Upstreams map[string][]resolver.Target
	// ByReload has the services whose servers are in Files, although nginx asks for those
	// of others, with the reason. It is empty if nginx doesn't ask for any.
	ByReload map[string]string
	// Written has the servers of all other upstreams, by upstream. An nginx that serves an
	// earlier configuration may ask for them.
	Written map[string][]resolver.Target
	// Entries has the services that it was made from, sorted by name.
	Entries []endpoints.Entry
	// Listeners has nginx's listeners with their routes; TCP services come last.
	Listeners []routing.Listener
	// Problems has the problems of the input. The configuration is valid nevertheless.
	Problems []Problem
	// PolicyIndex is Consul's index of the operator's policies that it was made with: every
	// write with a lower or the same index is in it. 0 means that Consul has not answered.
	PolicyIndex uint64
	// AccessIndex is the same of the documents about access.
	AccessIndex uint64
	// Seen is when the oldest answer of Consul came that the configuration has and that no
	// earlier one had; zero if it differs from the earlier one for other reasons only.
	Seen time.Time
	// Replaced is how many configurations with other files nobody received before this one came.
	Replaced int
	// Networks has the rules about networks that it was made with; nil if there are none.
	Networks *access.Networks

	set           templateSet // the templates that it was made with
	defaultPolicy consul.DefaultPolicy
	certificates  certificates.Set
	crowded       map[string]bool // services that have too many servers for a DNS answer
}

// Source delivers a Configuration whenever Consul or a template changes.
type Source struct {
	opts   Options
	table  *endpoints.Table
	names  *names
	consul *consul.Follower
	prober *probe.Prober
	logger *slog.Logger

	access   *access.Keeper
	reader   disk.Reader[templateSet] // of the templates
	pairs    disk.Reader[certificates.Set]
	updates  chan Configuration
	reloaded chan templateSet // from Reload
	renewed  chan certificates.Set

	// Only the loop uses these.
	set          templateSet
	certificates certificates.Set
	unanswered   time.Time // when Consul first listed a service without answering for it
	observed     bool      // the table has seen the catalog
	seen         time.Time // when the oldest answer of Consul came that is in no configuration yet
	started      time.Time // when Run was called
	latest       Configuration
	memo         memo
	// accessDocuments is Consul's last answer with documents about access.
	accessDocuments []consul.Document

	// failures passes template errors to Once.
	failures chan []Problem

	mu sync.Mutex
	// accessIndex is Consul's index of accessDocuments, once they count.
	accessIndex uint64
	waiting     ledger           // answers of Consul that the next configuration waits for
	catalog     ledger           // services in the catalog that lbctl can't balance
	services    ledger           // problems of services
	policies    ledger           // problems of the operator's policies
	templates   ledger           // templates that failed
	documents   ledger           // documents about access that can't be used
	files       ledger           // files that lbctl can't read or write
	tls         ledger           // certificates with a problem, or that will expire
	noted       certificates.Set // the newest certificates
	missing     ledger           // queries of templates that Consul has not answered
}

// New checks the options and reads the templates. It does not ask Consul yet.
func New(opts Options) (*Source, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	settings, err := opts.Settings.complete()
	if err != nil {
		return nil, err
	}
	opts.Settings = settings
	if opts.Table == nil {
		if opts.Table, err = endpoints.Open("", endpoints.Options{}); err != nil {
			return nil, err
		}
	}
	if opts.Access == nil {
		if opts.Access, err = access.Open(""); err != nil {
			return nil, err
		}
	}
	s := &Source{
		opts:     opts,
		access:   opts.Access,
		table:    opts.Table,
		prober:   probe.New(opts.Table, opts.Probe),
		memo:     memo{crowded: opts.Table.Crowded()},
		names:    newNames(),
		logger:   opts.Logger,
		updates:  make(chan Configuration, 1),
		reloaded: make(chan templateSet, 1),
		renewed:  make(chan certificates.Set, 1),
		failures: make(chan []Problem, 1),
	}
	if s.set, err = s.loadTemplates(context.Background()); err != nil {
		return nil, err
	}
	if opts.Certificates != nil {
		if s.certificates, err = s.readCertificates(context.Background()); err != nil {
			return nil, err
		}
		s.noteCertificates(s.certificates)
	}
	bridgeLog(opts.Logger)
	s.consul, err = consul.New(consul.Options{
		Consul:    opts.Consul,
		Table:     opts.Table,
		Reserved:  settings.reserved(),
		Policies:  opts.Policies,
		Documents: s.prefixes(),
		Logger:    opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Updates delivers each new Configuration. If several wait to be received, it delivers
// only the latest.
func (s *Source) Updates() <-chan Configuration { return s.updates }

// NginxAccepted is called when nginx serves a configuration that was made from the entries.
func (s *Source) NginxAccepted(entries []endpoints.Entry) { s.table.NginxAccepted(entries) }

// Status returns the state of Consul, the problems and the entries. It may be called at any
// time, also before Run.
func (s *Source) Status() Status {
	now := time.Now()
	problems := problemsOf(s.consul.Problems())
	s.mu.Lock()
	defer s.mu.Unlock()
	problems = slices.Concat(problems, s.waiting.problems, s.catalog.problems, s.policies.problems, s.services.problems, s.templates.problems, s.documents.problems, s.files.problems, s.tls.problems)
	for _, p := range s.missing.problems {
		if now.Sub(p.Since) > answerPatience {
			problems = append(problems, p)
		}
	}
	return Status{
		Consul:       s.consul.Status(),
		Problems:     problems,
		Certificates: s.noted.Certificates,
		Entries:      s.table.Entries(),
		AccessIndex:  s.accessIndex,
	}
}

// Listed reports whether Consul lists a service, balanced or not, and with which tags.
// known is false until Consul has answered. Any goroutine may call it.
func (s *Source) Listed(service string) (tags []string, listed, known bool) {
	return s.consul.Listed(service)
}

// Addresses returns the IP addresses that nginx has for the address of an instance. It may be
// called at any time.
func (s *Source) Addresses(address string) []string {
	found, _ := s.names.addresses(address)
	return found
}

// Prober returns what probes the instances of the table.
func (s *Source) Prober() *probe.Prober { return s.prober }

// Reload reads the files again that an operator may have changed: the token file, the
// certificates and the templates. It also retries services that nginx refused or that made
// a template fail. The error names the files that can't be used; their former content then
// stays in use. It waits for a file system that doesn't answer for some seconds at most, and
// ends with ctx. Any goroutine may call it.
func (s *Source) Reload(ctx context.Context) error {
	err := s.consul.Reload(ctx)
	if err != nil {
		err = fmt.Errorf("credentials for Consul: %w", err)
	}
	if s.opts.Certificates != nil {
		set, certificatesErr := s.readCertificates(ctx)
		if certificatesErr == nil {
			s.renew(set)
		}
		err = errors.Join(err, certificatesErr)
	}
	set, templatesErr := s.loadTemplates(ctx)
	if templatesErr != nil {
		return errors.Join(err, templatesErr)
	}
	latest(s.reloaded, set)
	return err
}

// Run watches Consul until ctx is done, and then returns nil. Call it once.
func (s *Source) Run(ctx context.Context) error {
	s.started = time.Now()
	g, ctx := errgroup.WithContext(ctx)
	sets := make(chan templateSet, 1)
	g.Go(func() error { return s.consul.Run(ctx) })
	g.Go(func() error { return s.names.run(ctx) })
	g.Go(func() error { return s.prober.Run(ctx) })
	g.Go(func() error { return s.access.Run(ctx, func(err error) { s.setFiles("access", err) }) })
	g.Go(func() error { return s.table.Run(ctx, func(err error) { s.setFiles("endpoints", err) }) })
	if s.opts.TemplatesDir != "" {
		g.Go(func() error { return s.readTemplates(ctx, sets) })
	}
	if s.opts.Certificates != nil {
		g.Go(func() error { return s.watchCertificates(ctx) })
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

// loop handles Consul's answers and changes of templates.
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
		case set := <-s.renewed:
			s.useRenewed(set)
		case <-s.table.Changed():
		case <-s.names.changed:
		case <-deadline:
		}
		// Answers often come in bursts: handle those that are there in one pass.
		for drained := false; !drained; {
			select {
			case view := <-s.consul.Answers():
				s.consul.Receive(view)
			default:
				drained = true
			}
		}
		s.seen = earlier(s.seen, s.consul.Received())
		s.follow()
		s.followAccess()
		s.consul.LogFailing()
		s.table.SetTrust(time.Now(), s.consul.Trust())
		if !s.observe(ctx) || !s.accessKnown() {
			continue
		}
		s.readNewlyNamed(ctx)
		if err := s.render(ctx); err != nil {
			return err
		}
	}
}

// nextDeadline returns when the loop must run even if nothing changes: at the next deadline
// of the table, or when the first pass has waited long enough. Zero means never.
func (s *Source) nextDeadline() time.Time {
	at := s.table.NextDeadline()
	if next := s.memo.networks.Next(); at.IsZero() || !next.IsZero() && next.Before(at) {
		at = next
	}
	if first := s.started.Add(firstAnswers); (!s.observed || !s.access.Known() && s.opts.AccessKeys != "") && time.Now().Before(first) {
		at = first // reconsider then uses the table's snapshot
	}
	if !s.observed && !s.unanswered.IsZero() {
		if first := s.unanswered.Add(firstAnswers); at.IsZero() || first.Before(at) {
			return first
		}
	}
	return at
}

// follow starts to watch the services that are in Consul's catalog.
func (s *Source) follow() {
	s.consul.Follow()
	s.consul.ReconsiderDefaultPolicy()
	problems, policies := problemsOf(s.consul.NotBalanced()), problemsOf(s.consul.PolicyProblems())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logNew("service left out", s.catalog.set(time.Now(), problems))
	s.logNew("policy has a problem", s.policies.set(time.Now(), policies))
}

var waitingForCatalog = []Problem{{Subject: "consul", Message: "Consul has not answered with its list of services yet"}}

// observe passes the catalog to the table once it is complete. It returns false if there is
// nothing to make a configuration from.
func (s *Source) observe(ctx context.Context) bool {
	seen, unanswered, known := s.consul.Services()
	if !known {
		s.setWaiting(waitingForCatalog)
		return s.reconsider()
	}
	unconfirmed := s.consul.Unconfirmed()
	remembered, pending, known := s.consul.Recall(unanswered, unconfirmed)
	// Without the policies a service could get requests that they keep out.
	known = known && s.consul.PoliciesKnown()
	if !known && !s.observed {
		if s.unanswered.IsZero() {
			s.unanswered = time.Now()
		}
		if time.Since(s.unanswered) < firstAnswers {
			return s.reconsider()
		}
	}
	seen = append(seen, remembered...)
	s.table.SetUnconfirmed(unconfirmed)
	if len(seen) == 0 || s.table.Vanishing(seen) > 0 {
		s.consul.CheckFilter(ctx, s.lost(seen))
		s.table.SetTrust(time.Now(), s.consul.Trust())
	}
	entries := s.table.Observe(time.Now(), seen)
	s.observed = true
	var waiting []Problem
	if len(pending) > 0 {
		waiting = []Problem{{Subject: "consul", Message: fmt.Sprintf(
			"no answer yet about %d services, among them %q: is limits.http_max_conns_per_client of the Consul agent high enough?", len(pending), pending[0])}}
	}
	s.setWaiting(waiting)
	// If the token may not see the services, an empty catalog means nothing.
	return len(entries) > 0 || !s.table.Trust().Filtered
}

// reconsider makes the table decide again about the entries of its snapshot, once Consul
// had firstAnswers to answer. It returns false if there is nothing to make a configuration
// from.
func (s *Source) reconsider() bool {
	if time.Since(s.started) < firstAnswers {
		return false
	}
	departed := s.table.Reconsider(time.Now())
	// If nginx asks for servers, it gets those of the snapshot.
	return departed || s.opts.Settings.Resolver != "" && len(s.table.Entries()) > 0
}

func (s *Source) setWaiting(problems []Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.set(time.Now(), problems)
}

// lost lists the services that have fewer instances in rotation in Consul than before.
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

// render executes the templates, and publishes the result.
func (s *Source) render(ctx context.Context) error {
	began := time.Now()
	entries := s.table.Entries()
	if !s.names.want(hostNames(entries, s.memo.layout)) && s.latest.Hash == "" {
		return nil // the first configuration must have all instances, so wait for their names
	}
	s.memo.networks = s.access.Networks(began)
	r, problems := renderKnown(s.set, s.opts.Settings.with(s.certificates), entries, s.names, s.consul.Brain(), &s.memo)
	if err := s.consul.SetNative(r.needs, len(r.problems) == 0); err != nil {
		return err
	}
	good := len(r.problems) == 0 && len(r.missing) == 0
	if len(r.problems) > 0 && len(r.missing) == 0 && s.failedFor(entries, r.problems) {
		return nil
	}
	if good && s.opts.Settings.Resolver != "" {
		s.table.SetByReload(r.delivered.byReload)
		s.table.SetCrowded(r.delivered.crowded)
	}
	if good {
		entries = s.table.SetUnusable(r.unusable)
	}

	now := time.Now()
	s.mu.Lock()
	s.logNew("service has a problem", s.services.set(now, problems))
	s.missing.set(now, missingProblems(r.missing))
	if len(r.missing) == 0 { // otherwise they may have failed only because answers are missing
		s.logNew("template failed", s.templates.set(now, r.problems))
	}
	c := r.configuration(entries, s.services.problems)
	c.set, c.certificates, c.PolicyIndex = s.set, s.certificates, s.consul.PolicyIndex()
	c.AccessIndex = s.accessIndex
	c.Networks, c.defaultPolicy = s.memo.networks, s.consul.DefaultPolicy()
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
		s.publish(c)
		s.logger.Debug("templates rendered", "took", time.Since(began))
	}
	s.seen = time.Time{}
	return nil
}

// publish delivers a configuration that has all answers of Consul so far. It replaces one that
// nobody has received.
func (s *Source) publish(c Configuration) {
	c.Seen = s.seen
	select {
	case old := <-s.updates:
		c.Seen = earlier(c.Seen, old.Seen)
		if c.Replaced = old.Replaced; old.Hash != c.Hash {
			c.Replaced++
		}
	default:
	}
	s.updates <- c // has room: nobody else sends
}

// earlier returns the earlier of two times; zero means none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// equal first compares the fields that change most often.
func (c Configuration) equal(d Configuration) bool {
	return c.Hash == d.Hash && maps.EqualFunc(c.Upstreams, d.Upstreams, resolver.SameTargets) && reflect.DeepEqual(c, d)
}

// latest puts a value in a channel with room for one. A value that is still in the
// channel is replaced. Of concurrent calls, that of any may count.
func latest[T any](c chan T, value T) {
	select {
	case <-c:
	default:
	}
	select {
	case c <- value:
	default: // a concurrent call has sent one
	}
}

func (s *Source) logNew(message string, added []Problem) {
	for _, p := range added {
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

// hostNames returns the addresses of instances that are host names. It skips services whose
// instances are all in the earlier layout, with IP addresses.
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

// renderKnown executes the templates with the known addresses of host names. entries may be
// a part of all entries. It returns the rendering and the problems of the services; no
// problem has a time yet. It reuses the rendering in last if the templates would give the
// same files, and replaces it otherwise. Templates don't see services in quarantine that
// never had a good version.
func renderKnown(set templateSet, settings Settings, entries []endpoints.Entry, names *names, brain *template.Brain, last *memo) (rendering, []Problem) {
	seen := entries
	unusable := func(e endpoints.Entry) bool { return e.Refused && !e.Served() }
	if slices.ContainsFunc(seen, unusable) {
		seen = slices.DeleteFunc(slices.Clone(seen), unusable)
	}
	catalog, laidOut := newCatalog(seen, settings, names.addresses, last.layout, last.crowded)
	catalog.networks = last.networks
	if !last.fits(set, catalog) {
		r := execute(set, functions(catalog, settings), brain)
		if len(r.problems) == 0 {
			if err := checkFiles(r.files); err != nil {
				r.problems = []Problem{{Subject: "template " + mainTemplate, Message: err.Error()}}
			}
		}
		maps.Copy(r.files, catalog.files)
		addNetworks(r.files, catalog)
		r.hash = hash(r.files)
		*last = memo{set: set, catalog: catalog, rendering: r, networks: last.networks}
	}
	laidOut.before, laidOut.earlier = nil, nil // otherwise each layout would keep all earlier ones in memory
	last.layout, last.crowded = laidOut, laidOut.crowded
	r := last.rendering
	r.delivered, r.unusable = laidOut.deliver(last.catalog.reads.asked), laidOut.unusable
	r.listeners = laidOut.listeners
	problems := append(serviceProblems(entries), laidOut.problems...)
	if last.networks != nil && !last.catalog.reads.networks {
		problems = append(problems, networksUnused)
	}
	return r, problems
}

// serviceProblems returns the problems that the table and package metadata found.
func serviceProblems(entries []endpoints.Entry) []Problem {
	var problems []Problem
	for _, e := range entries {
		reason := ""
		if e.Expired || slices.Contains([]endpoints.State{endpoints.Panic, endpoints.Held, endpoints.Quarantined}, e.State) {
			reason = string(e.State) + ": " + e.Reason
			problems = append(problems, Problem{Subject: ServiceSubject(e.Name), Message: reason})
		}
		if e.AllInMaintenance() && !e.Expired {
			which := "its only instance is"
			if n := len(e.Instances); n > 1 {
				which = fmt.Sprintf("all %d are", n)
			}
			problems = append(problems, Problem{Subject: ServiceSubject(e.Name), Message: "no instance gets traffic, because " + which + " in maintenance"})
		}
		if closed := e.Policy.Closure(e.Protocol.Family()); closed != nil && e.Served() {
			problems = append(problems, Problem{Subject: ServiceSubject(e.Name), Message: "maintenance: " + closed.String()})
		}
		for _, message := range e.Problems {
			if !strings.Contains(reason, message) { // otherwise the reason says it already
				problems = append(problems, Problem{Subject: ServiceSubject(e.Name), Message: message})
			}
		}
	}
	return problems
}

// readTemplates reads the templates regularly, and sends them when they have changed.
func (s *Source) readTemplates(ctx context.Context, sets chan<- templateSet) error {
	last := s.set
	return poll(ctx, s, "templates", templatesInterval, s.loadTemplates, func(set templateSet) error {
		if set.equal(last) {
			return nil
		}
		s.logger.Info("templates changed", "directory", s.opts.TemplatesDir)
		last = set
		select {
		case <-ctx.Done():
			return ctx.Err()
		case sets <- set:
			return nil
		}
	})
}

// setFiles stores the result of reading or writing the files of subject.
func (s *Source) setFiles(subject string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	problems := slices.DeleteFunc(slices.Clone(s.files.problems), func(p Problem) bool { return p.Subject == subject })
	if err != nil {
		problems = append(problems, Problem{Subject: subject, Message: err.Error()})
	}
	s.logNew("files", s.files.set(time.Now(), problems))
}

// loadTemplates reads the templates, if their file system answers.
func (s *Source) loadTemplates(ctx context.Context) (templateSet, error) {
	set, err := s.reader.Read(ctx, func() (templateSet, error) { return loadTemplates(s.opts.TemplatesDir) })
	if errors.Is(err, disk.ErrStalled) {
		err = fmt.Errorf("read the templates directory %q: %w", s.opts.TemplatesDir, err)
	}
	return set, err
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
