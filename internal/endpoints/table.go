package endpoints

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options tunes a Table. A number or duration that is zero is that of DefaultOptions,
// unless its comment says what zero means.
type Options struct {
	// GuardShare is the share of all known instances that may vanish within
	// GuardWindow before the guard holds them. With 1 or more
	// only services that lose every instance are guarded.
	GuardShare float64
	// GuardWindow is what counts as "at once".
	GuardWindow time.Duration
	// GuardHold is how long vanished instances are held at most, while
	// Consul can be trusted.
	GuardHold time.Duration
	// PanicThreshold is the share of a service's instances not in maintenance,
	// in percent and rounded up, that must be in rotation: with less of them
	// all get traffic. The default is such that only a service of which no instance
	// passes panics; with a negative one none does.
	PanicThreshold int
	// MinInstances is how many instances a service keeps in rotation when more
	// vanish: those are held. It is for services that have no MinInstances of
	// their own; default none.
	MinInstances int
	// MaxStale is how long a service is served that Consul does not confirm,
	// because it can't be reached or trusted; default for ever.
	MaxStale time.Duration
	// SlowStart is how long the weight of an instance that was out rises until
	// it is full, from 1 s on; 0: none.
	SlowStart time.Duration
	// CheapWeights says whether a change of weight costs little for a service,
	// which is to say no reload: others have no slow start. Default none. It is
	// called with the table locked, and must not call it.
	CheapWeights func(service string) bool
	// MaxEjected is the share of a service's instances in rotation that may be
	// ejected. One may be in any case, but never all.
	MaxEjected float64
	// Logger gets what is ejected and comes back; default none.
	Logger *slog.Logger
}

// DefaultOptions are what a balancer uses unless its operator says otherwise.
func DefaultOptions() Options {
	return Options{
		GuardShare:     0.5,
		GuardWindow:    10 * time.Second,
		GuardHold:      time.Minute,
		PanicThreshold: 1,
		SlowStart:      10 * time.Second,
		MaxEjected:     0.5,
	}
}

// guardMin is how many instances must be known before a share of them means
// anything: of three, two may well leave together.
const guardMin = 4

// Trust says why Consul's answers can't be taken at their word now. The zero
// value is full trust.
type Trust struct {
	// Filtered: answers are filtered by ACLs (QueryMeta's
	// ResultsFilteredByACLs), so what is absent may just be invisible.
	Filtered bool
	// NoLeader: the servers have no leader, or don't answer at all.
	NoLeader bool
	// Refused: Consul refuses the token or the certificate. NoLeader is true, too.
	Refused bool
}

// Table turns observations of the catalog into what is to be served. It is
// safe for use by several goroutines.
type Table struct {
	opts Options
	path string
	free func(address string) bool // nobody listens there

	changed  chan struct{}
	observed chan struct{}

	mu      sync.Mutex
	records map[string]*record // by service name
	sorted  []string           // their names, as of the last time that they were asked for
	owners  map[claim]string   // who serves a route that several may claim
	// claimants are who had their claims settled last; contested, whether somebody
	// yielded.
	claimants []claimant
	contested bool
	vanished  []vanishing // within GuardWindow; without those that were let go for good
	counts    []count     // within GuardWindow
	trust     Trust
	doubts    map[string]string // by service name: why Consul's last word on it may be out of date
	seen      time.Time         // the last observation, or that of the snapshot
	composed  time.Time         // when the entries were made
	live      bool              // something was observed since lbctl started
	departed  bool              // before that: the entries are not those of the snapshot
	entries   []Entry
	foreseen  foreseen

	saveMu sync.Mutex
	saved  [sha256.Size]byte // of what the file says, but for its dates
	stored time.Time         // when
}

// record is what the table remembers of one service.
type record struct {
	good      *Spec      // when it was last understood; nil: never was
	instances []Instance // registered, at the last observation
	serving   int        // how many of them are in rotation
	calm      *calm      // nil: nothing composed yet
	held      map[id]*hold
	peak      int // of instances, held ones included
	failing   map[id]failing
	traffic   map[id]traffic // kept only where there is a slow start
	heard     bool           // something of it, since lbctl started
	listed    bool           // by the last observation
	expired   bool           // when the entries were made
	confirmed time.Time      // when Consul last stood by what it said
	state     State
	since     time.Time
	took      *Service // what nginx took last; nil: nothing yet
	tookFrom  *Service // of which it was made; nil: of more than that
	refused   *refusal // nil: not in quarantine
}

// spec is the service's Spec when it was last understood, or the zero one.
func (r *record) spec() Spec {
	if r.good == nil {
		return Spec{}
	}
	return *r.good
}

// id names an instance within its service.
type id struct{ node, id string }

func (i Instance) key() id { return id{i.Node, i.ID} }

// hold is one instance that is served though Consul doesn't list it.
type hold struct {
	instance Instance
	reason   string
	since    time.Time
	until    time.Time // zero: restored from the snapshot, runs from the next observation
}

// count is how many instances were served until an observation.
type count struct {
	at     time.Time
	served int
}

// vanishing is one instance that went from the rotation to nothing.
type vanishing struct {
	at       time.Time
	service  string
	instance Instance
}

func newTable(path string, opts Options) *Table {
	defaults := DefaultOptions()
	opts.GuardShare = cmp.Or(opts.GuardShare, defaults.GuardShare)
	opts.GuardWindow = cmp.Or(opts.GuardWindow, defaults.GuardWindow)
	opts.GuardHold = cmp.Or(opts.GuardHold, defaults.GuardHold)
	opts.PanicThreshold = cmp.Or(opts.PanicThreshold, defaults.PanicThreshold)
	opts.MaxEjected = cmp.Or(opts.MaxEjected, defaults.MaxEjected)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Table{
		opts:     opts,
		path:     path,
		free:     free,
		changed:  make(chan struct{}, 1),
		observed: make(chan struct{}, 1),
		records:  map[string]*record{},
		owners:   map[claim]string{},
	}
}

// Observe takes the whole catalog as seen at now and returns what is to be
// served, sorted by name. Observations must be complete: a service that is
// absent is taken to have no instance at all.
//
// The instances are kept: the caller must not change them any more. Those that
// are the very same as before, in the same place in memory, take next to no time.
//
// Observing the same again is how time and decisions take effect: do so when
// Changed fires and when NextDeadline has come.
//
// The entries are shared: nobody may change them.
func (t *Table) Observe(now time.Time, services []Service) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.observation(services)
	t.foreseen = foreseen{}
	t.dropUnbalanced(o)
	fresh := t.notice(now, o)
	t.review(now, o)
	t.guard(now, o, fresh)
	t.remember(o)
	t.seen, t.live = now, true
	t.confirm(now)
	t.entries = t.compose(now, o)
	notify(t.observed)
	return t.entries
}

// Vanishing counts the instances in rotation that an observation of services
// would find gone from the catalog. It changes nothing: a caller who can find
// out whether Consul's answer is filtered does so, and calls SetTrust, before
// it lets the table observe.
func (t *Table) Vanishing(services []Service) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.observation(services)
	t.foreseen = foreseen{services, o}
	n := 0
	for name, r := range t.records {
		s, ok := o.services[name]
		if ok && (s.OK && s.Protocol == "" || same(s.Instances, r.instances)) {
			continue
		}
		for _, i := range r.instances {
			if t.missing(o, name, i) {
				n++
			}
		}
	}
	return n
}

// Entries is the result of the last observation, or, before the first one,
// what the snapshot remembers, as stale. It is shared: nobody may change it.
func (t *Table) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries
}

// SetTrust says whether Consul can be taken at its word. While it can't,
// nothing vanishes and no hold ends by time or by the second look; what
// vanished within the GuardWindow before comes back. When trust returns, holds
// run for a full GuardHold again, so that data has time to arrive.
func (t *Table) SetTrust(now time.Time, trust Trust) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if trust == t.trust {
		return
	}
	t.confirm(now)
	t.trust = trust
	if trust == (Trust{}) {
		for _, r := range t.records {
			for _, h := range r.held {
				h.until = now.Add(t.opts.GuardHold)
			}
		}
		notify(t.observed)
	}
	notify(t.changed)
}

// Trust is what SetTrust said last. A table restored from a snapshot that was
// written while answers were filtered distrusts them until told otherwise.
func (t *Table) Trust() Trust {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trust
}

// Changed fires when the table would answer differently to the same
// observation, because of trust, the second look or the operator.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// Observed fires when instances have to be asked that were not asked before, or no
// longer, because of an observation or of trust. It is for one reader.
func (t *Table) Observed() <-chan struct{} { return t.observed }

// NextDeadline is when time alone makes another answer of the same observation:
// a hold runs out, a weight rises, a service has gone unconfirmed for too long, or
// what was refused may be tried again; zero when nothing will.
func (t *Table) NextDeadline() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.nextTrial()
	at := func(deadline time.Time) {
		if !deadline.IsZero() && (next.IsZero() || deadline.Before(next)) {
			next = deadline
		}
	}
	for name, r := range t.records {
		if !r.expired {
			at(t.expiry(name, r))
		}
		at(t.nextStep(r))
		if t.trust != (Trust{}) {
			continue
		}
		for _, h := range r.held {
			at(h.until)
		}
	}
	return next
}

// names is the services that there are records of, in order.
func (t *Table) names() []string {
	current := len(t.sorted) == len(t.records)
	for _, name := range t.sorted {
		current = current && t.records[name] != nil
	}
	if !current {
		t.sorted = slices.Sorted(maps.Keys(t.records))
	}
	return t.sorted
}

// observation is the catalog at one moment.
type observation struct {
	services map[string]Service
	// What is derived is so when it is asked for: mostly little has changed.
	ids map[string]map[id]bool
	at  map[string][]registered // by host and port
}

type registered struct {
	service string
	id      id
}

// foreseen is what Vanishing was asked about: mostly it is observed next.
type foreseen struct {
	services    []Service
	observation *observation
}

func (t *Table) observation(services []Service) *observation {
	if f := t.foreseen; f.observation != nil && same(f.services, services) {
		return f.observation
	}
	o := &observation{services: make(map[string]Service, len(services)), ids: map[string]map[id]bool{}}
	for _, s := range services {
		r := t.records[s.Name]
		known := r != nil && same(r.instances, s.Instances) // and was looked at before
		if !known && !slices.IsSortedFunc(s.Instances, compareInstances) {
			s.Instances = slices.Clone(s.Instances)
			slices.SortFunc(s.Instances, compareInstances)
		}
		s.Problems = slices.Clip(s.Problems)
		o.services[s.Name] = s
	}
	return o
}

func (o *observation) has(service string, k id) bool {
	ids, ok := o.ids[service]
	if !ok {
		s := o.services[service]
		ids = make(map[id]bool, len(s.Instances))
		for _, i := range s.Instances {
			ids[i.key()] = true
		}
		o.ids[service] = ids
	}
	return ids[k]
}

// registeredAt is who is registered at a host and port, of the services that are
// not as they were.
func (t *Table) registeredAt(o *observation, hostPort string) []registered {
	if o.at == nil {
		o.at = map[string][]registered{}
		for name, s := range o.services {
			if r := t.records[name]; r != nil && same(r.instances, s.Instances) {
				continue
			}
			for _, i := range s.Instances {
				o.at[i.HostPort()] = append(o.at[i.HostPort()], registered{name, i.key()})
			}
		}
	}
	return o.at[hostPort]
}

// dropUnbalanced forgets services that are registered but are not to be
// balanced any longer: that is somebody's word, not a loss.
func (t *Table) dropUnbalanced(o *observation) {
	for name, s := range o.services {
		if s.OK && s.Protocol == "" {
			delete(t.records, name)
			t.vanished = slices.DeleteFunc(t.vanished, func(v vanishing) bool { return v.service == name })
			delete(o.services, name)
		}
	}
}

// notice finds what vanished since the last observation, and returns how many
// of each service did.
func (t *Table) notice(now time.Time, o *observation) map[string]int {
	t.vanished = slices.DeleteFunc(t.vanished, func(v vanishing) bool {
		return now.Sub(v.at) > t.opts.GuardWindow || o.has(v.service, v.instance.key())
	})
	served := 0
	for _, r := range t.records {
		served += len(r.held) + r.serving
	}
	t.counts = slices.DeleteFunc(t.counts, func(c count) bool { return now.Sub(c.at) > t.opts.GuardWindow })
	t.counts = append(t.counts, count{now, served})
	fresh := map[string]int{}
	for _, name := range t.names() {
		r := t.records[name]
		if s, ok := o.services[name]; ok && same(s.Instances, r.instances) {
			continue
		}
		for _, i := range r.instances {
			if t.missing(o, name, i) {
				t.vanished = append(t.vanished, vanishing{now, name, i})
				fresh[name]++
			}
		}
	}
	return fresh
}

// missing reports whether an instance is gone from the catalog though nothing
// was known against it: Consul had it in rotation, and so had we.
func (t *Table) missing(o *observation, service string, i Instance) bool {
	f := t.records[service].failing[i.key()]
	return i.InRotation() && (f.Source == "" || f.Kept) && !o.has(service, i.key()) && !t.takenOver(o, service, i)
}

// takenOver reports whether a vanished instance's address belongs to another
// now: to one of the same service under another id, or to a newcomer of any
// service, as after a restart in which containers swapped addresses. Serving
// it further would send traffic to the wrong service.
func (t *Table) takenOver(o *observation, service string, i Instance) bool {
	for _, who := range t.registeredAt(o, i.HostPort()) {
		if _, balanced := o.services[who.service]; !balanced {
			continue
		}
		if who.service == service && who.id != i.key() {
			return true
		}
		if who.service != service && !t.knew(who) {
			return true
		}
	}
	return false
}

func (t *Table) knew(who registered) bool {
	r, ok := t.records[who.service]
	return ok && slices.ContainsFunc(r.instances, func(i Instance) bool { return i.key() == who.id })
}

// review ends the holds that have come to their end.
func (t *Table) review(now time.Time, o *observation) {
	trusted := t.trust == Trust{}
	for name, r := range t.records {
		for k, h := range r.held {
			if h.until.IsZero() {
				h.until = now.Add(t.opts.GuardHold)
			}
			switch {
			case o.has(name, k), t.takenOver(o, name, h.instance), trusted && !now.Before(h.until):
				t.drop(name, k)
			}
		}
	}
}

// drop ends one hold for good: the instance is gone or back, and is not
// brought back by what vanishes next.
func (t *Table) drop(service string, k id) {
	delete(t.records[service].held, k)
	t.vanished = slices.DeleteFunc(t.vanished, func(v vanishing) bool {
		return v.service == service && v.instance.key() == k
	})
}

// guard decides which of the vanished are held.
func (t *Table) guard(now time.Time, o *observation, fresh map[string]int) {
	if t.trust != (Trust{}) {
		reason := "vanished while Consul has no leader"
		if t.trust.Filtered {
			reason = "vanished while Consul filters its answers by ACLs; the token may be too weak"
		}
		t.hold(now, t.vanished, reason)
		return
	}
	if len(fresh) == 0 {
		return
	}
	missing, known := t.toll(o)
	if known >= guardMin && float64(missing) > t.opts.GuardShare*float64(known) {
		// What vanished before and was replaced since stays away.
		lost := t.vanished[max(0, len(t.vanished)-missing):]
		t.hold(now, lost, fmt.Sprintf("%d of %d instances vanished from the catalog at once", missing, known))
		return
	}
	for name, n := range fresh {
		s := o.services[name]
		if s.InRotation() == 0 {
			reason := fmt.Sprintf("the last %d instances in rotation vanished from the catalog at once", n)
			switch {
			case n == 1:
				reason = "the last instance in rotation vanished from the catalog"
			case len(s.Instances) == 0:
				reason = fmt.Sprintf("all %d instances vanished from the catalog at once", n)
			}
			var lost []vanishing
			for _, v := range t.vanished {
				if v.service == name {
					lost = append(lost, v)
				}
			}
			t.hold(now, lost, reason)
			continue
		}
		t.keepMinimum(now, name, s)
	}
}

// toll counts what is missing, net of what came in its place within the window,
// and what was there before it went. A roll-out that starts a new instance for
// every one that it deregisters is no loss, however many it replaces.
func (t *Table) toll(o *observation) (missing, known int) {
	listed := 0
	for _, s := range o.services {
		listed += s.InRotation()
	}
	counted := map[registered]bool{}
	for _, v := range t.vanished {
		counted[registered{v.service, v.instance.key()}] = true
	}
	missing = len(counted)
	for name, r := range t.records {
		for k := range r.held {
			if !counted[registered{name, k}] {
				missing++
			}
		}
	}
	peak := 0
	for _, c := range t.counts {
		peak = max(peak, c.served)
	}
	missing = min(missing, max(0, peak-listed))
	return missing, listed + missing
}

// hold keeps what vanished in rotation, unless it is held already.
func (t *Table) hold(now time.Time, lost []vanishing, reason string) {
	for _, v := range lost {
		r := t.records[v.service]
		if r == nil {
			continue // the rest of the service has left of its own accord since
		}
		k := v.instance.key()
		if r.held[k] != nil {
			continue
		}
		if r.held == nil {
			r.held = map[id]*hold{}
		}
		r.held[k] = &hold{v.instance, reason, now, now.Add(t.opts.GuardHold)}
	}
}

// remember keeps the observation for the next one to be compared with.
func (t *Table) remember(o *observation) {
	for name, s := range o.services {
		r := t.records[name]
		if r == nil {
			r = &record{}
			t.records[name] = r
		}
		if !same(r.instances, s.Instances) {
			r.instances, r.serving = s.Instances, s.InRotation()
		}
		r.heard, r.listed = true, true
		if s.OK && (r.good == nil || !r.good.Equal(s.Spec)) {
			good := s.Spec
			r.good = &good
		}
	}
	for name, r := range t.records {
		if _, ok := o.services[name]; ok {
			continue
		}
		r.instances, r.serving = nil, 0
		r.heard, r.listed = true, false
		if len(r.held) == 0 {
			delete(t.records, name)
		}
	}
}

// compose makes the entries of the records; o is nil as long as there was nothing
// to observe.
func (t *Table) compose(now time.Time, o *observation) []Entry {
	t.composed = now
	entries := make([]Entry, 0, len(t.records))
	for _, name := range t.names() {
		r := t.records[name]
		s := Service{Name: name, Instances: r.instances, OK: true}
		if o != nil {
			if seen, ok := o.services[name]; ok {
				s = seen
			}
		}
		if t.isCalm(r, s, o) {
			entries = append(entries, r.calm.entry)
			continue
		}
		e := Entry{Service: s}
		e.Spec = r.spec()
		for _, h := range r.held {
			e.Held = append(e.Held, h.instance)
		}
		slices.SortFunc(e.Held, compareInstances)
		r.peak = max(r.peak, len(r.instances)+len(r.held))
		e.Peak = r.peak
		e.Ejections = t.ejections(r, e)
		e.State, e.Reason = t.judge(now, r, &e, o == nil)
		if o == nil {
			// Stale is a state of this process; what it was before goes on
			// after the first observation.
			e.Since = t.seen
		} else {
			if e.State != r.state || r.since.IsZero() {
				r.state, r.since = e.State, now
			}
			e.Since = r.since
		}
		e.Returns = t.returns(now, r, e)
		r.calm = &calm{s, e}
		entries = append(entries, e)
	}
	t.quarantine(now, entries)
	t.settleClaims(entries)
	for n := range entries {
		e := &entries[n]
		e.rotation = e.Rotation() // many will ask
		if r := t.records[e.Name]; r.refused == nil {
			r.calm.entry.rotation = e.rotation
		}
	}
	return entries
}

// judge says how much a service's entry can be trusted, and why. What that means
// for its traffic it notes in the entry.
func (t *Table) judge(now time.Time, r *record, e *Entry, restored bool) (State, string) {
	state := Fresh
	var reasons []string
	switch {
	case restored:
		state = Stale
		reasons = append(reasons, "as of "+t.seen.Format(time.DateTime)+", from the snapshot: Consul has not answered since lbctl started")
	case t.trust.Refused:
		state = Stale
		reasons = append(reasons, "Consul refuses the token or the certificate: this is the last it said")
	case t.trust.NoLeader:
		state = Stale
		reasons = append(reasons, "Consul has no leader or does not answer: this is the last it said")
	case t.doubts[e.Name] != "":
		state = LastKnownGood
		reasons = append(reasons, t.doubts[e.Name])
	}
	if !e.OK {
		state = Quarantined
		why := "none of its instances has metadata that can be understood"
		if len(e.Problems) > 0 {
			why = e.Problems[0]
		}
		kept := "not served, for there is no earlier good state"
		if r.good != nil {
			kept = "its last good routes are kept"
		}
		reasons = append(reasons, kept+": "+why)
	}
	if len(r.held) > 0 {
		state = Held
		reasons = append(reasons, t.holdReason(r))
	}
	expired := t.expired(now, e.Name, r)
	r.expired, e.Expired = expired != "", expired != ""
	if e.Expired {
		return Stale, strings.Join(append(reasons, expired), "; ")
	}
	if why := t.panics(*e); why != "" && r.good != nil {
		state = Panic
		e.Panicking = true
		for n := range e.Ejections {
			e.Ejections[n].Kept = true
		}
		reasons = append(reasons, why)
	}
	return state, strings.Join(reasons, "; ")
}

func (t *Table) holdReason(r *record) string {
	var latest *hold
	for _, h := range r.held {
		if latest == nil || h.since.After(latest.since) || h.since.Equal(latest.since) && h.reason > latest.reason {
			latest = h
		}
	}
	return fmt.Sprintf("%s; %d kept in rotation", latest.reason, len(r.held))
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
