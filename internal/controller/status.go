package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lbctl/internal/certificates"
	"lbctl/internal/consul"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// State is the state of the load balancer in one word.
type State string

// The states of a Status.
const (
	Starting State = "starting" // lbctl has no configuration yet
	Serving  State = "serving"  // nginx serves what Consul says; single services may be held back
	Pending  State = "pending"  // a change is on its way
	Degraded State = "degraded" // something is wrong; the last good configuration is served
	Frozen   State = "frozen"   // an operator's rollback is served
	Down     State = "down"     // nginx does not answer
)

// States returns all states.
func States() []State { return []State{Starting, Serving, Pending, Degraded, Frozen, Down} }

// Status describes the load balancer. `lbctl status -o json` prints it as JSON: fields may
// be added to it, but never renamed.
type Status struct {
	State State `json:"state"`
	// Summary is the state in one sentence for people, with the reason when
	// something is wrong.
	Summary   string           `json:"summary"`
	Version   string           `json:"version"` // version of lbctl
	Started   time.Time        `json:"started"` // when lbctl started
	Nginx     Nginx            `json:"nginx"`
	Consul    consul.Status    `json:"consul"`
	Services  int              `json:"services"`  // number of services that nginx serves
	Instances int              `json:"instances"` // number of instances that get traffic
	Pending   *PendingChange   `json:"pending,omitempty"`
	Frozen    *Pin             `json:"frozen,omitempty"`
	Problems  []render.Problem `json:"problems,omitempty"`
	// Certificates are those that nginx shows to its clients, sorted by name.
	Certificates []certificates.Certificate `json:"certificates,omitempty"`
	LastApply    *LastApply                 `json:"last_apply,omitempty"` // since lbctl started; including failed ones
	// LastChange is the newest event of the history about a configuration or about servers
	// that nginx was given, or was to be given; from before lbctl started, too. A failure
	// that repeats is in LastApply only.
	LastChange *history.Event  `json:"last_change,omitempty"`
	Endpoints  EndpointsStatus `json:"endpoints"`
	Policies   Documents       `json:"policies"`
	// Access are the rules about networks, which nginx serves, and the keys, which count as soon
	// as Consul has answered.
	Access Documents `json:"access"`
}

// Documents says which of the operator's documents count. Consul's index of a write says whether
// the write is among them.
type Documents struct {
	// Prefix is what their keys in Consul's KV begin with: "lb/".
	Prefix string `json:"prefix"`
	// Index is Consul's index of the newest answer; 0 before there is one.
	Index uint64 `json:"index"`
	// ServedIndex is that of the configuration that nginx serves; 0 if it is not known.
	ServedIndex uint64 `json:"served_index"`
}

// Nginx describes the nginx that lbctl controls.
type Nginx struct {
	Version    string    `json:"version"`
	Running    bool      `json:"running"`        // its master process runs
	PID        int       `json:"pid,omitempty"`  // process ID of the master
	Generation int       `json:"generation"`     // generation that it serves; 0 if it does not answer
	Since      time.Time `json:"since,omitzero"` // when it began to serve the generation
	Workers    int       `json:"workers"`
	// WorkersReason is Options.WorkersNote.
	WorkersReason string `json:"workers_reason,omitempty"`
	OldWorkers    int    `json:"old_workers"` // still busy with connections from before a reload
	// OldWorkersSince is when a reload retired the oldest of them, as far as lbctl has
	// seen; zero if there is none.
	OldWorkersSince time.Time `json:"old_workers_since,omitzero"`
	// OldWorkersMemory is the memory that they don't share with other processes, in
	// total; 0 if it is not known.
	OldWorkersMemory int64 `json:"old_workers_memory_bytes,omitempty"`
}

// PendingChange is a change that nginx doesn't serve yet.
type PendingChange struct {
	Since  time.Time `json:"since"`
	Change string    `json:"change"` // "hello_server +1"
	Reason string    `json:"reason"` // why it isn't served yet
}

// LastApply describes the last attempt to apply a configuration.
type LastApply struct {
	At          time.Time    `json:"at"`
	TookSeconds float64      `json:"took_seconds"`
	Generation  int          `json:"generation"` // the current one after it
	Outcome     history.Kind `json:"outcome"`
}

// view is a copy of the loop's state for Status.
type view struct {
	started   time.Time // when lbctl started; set by Status
	current   nginx.Generation
	since     time.Time
	services  int
	instances int
	known     bool // the source has delivered a configuration
	files     map[string][]byte
	routing   Routing
	busy      string // description of the running job; "" for none
	pending   *PendingChange
	pin       *Pin
	failure   *failure
	drifted   *failure
	down      *failure
	last      *LastApply

	asked           map[string]bool // upstreams that nginx asks for; nil if it doesn't ask
	askedSince      map[string]time.Time
	byReload        map[string]string
	policies        Documents
	accessServed    uint64
	master          nginx.Process // at the last check
	bootstrapFailed *failure
	bootstrapLeft   map[string]*failure // by service
}

// publish passes the state to Status and Counts.
func (l *loop) publish() {
	l.counted.setFailing(l.failure != nil || l.drifted != nil)
	v := view{
		current:   l.current,
		since:     l.since,
		files:     l.files,
		services:  l.current.Services,
		instances: l.current.Instances,
		known:     l.latest != nil,
		busy:      l.job.what,
		pending:   l.pendingChange(),
		pin:       copied(l.pin),
		failure:   copied(l.failure),
		drifted:   copied(l.drifted),
		down:      copied(l.down),
		last:      copied(l.last),

		bootstrapFailed: l.delivery.bootstrap.failed,
		bootstrapLeft:   l.delivery.bootstrap.leftServices(l.latest),
	}
	v.routing = Routing{Generation: l.current.Number, InForce: l.listeners != nil, Listeners: l.listeners}
	if l.listeners == nil && l.latest != nil {
		v.routing.Listeners = l.latest.Listeners
	}
	if l.opts.Endpoints != nil {
		v.asked, v.askedSince, v.master = l.delivery.asked.upstreams, l.delivery.since, l.delivery.master
	}
	if l.latest != nil {
		v.byReload = l.latest.ByReload
		v.policies.Index = l.latest.PolicyIndex
		if l.latest.Hash == l.current.Hash {
			l.policyIndex, l.accessIndex = l.latest.PolicyIndex, l.latest.AccessIndex
		}
	}
	v.policies.ServedIndex, v.accessServed = l.policyIndex, l.accessIndex
	if l.failure != nil && l.failure.culprits != "" {
		v.failure = nil // nothing else is affected; their changes are being removed
	}
	if l.entries != nil {
		v.services, v.instances = l.summaries.count(l.entries)
	} else if asked := l.latestAsked(); len(asked) > 0 && len(asked) == l.current.Services {
		v.services, v.instances = count(asked)
	}
	l.show(v)
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func (l *loop) pendingChange() *PendingChange {
	if l.latest == nil {
		return nil
	}
	if l.latest.Hash == l.current.Hash {
		return l.movingChange()
	}
	p := &PendingChange{Since: l.settle.first, Change: l.change()}
	due, _ := l.due()
	earliest := l.governor.earliest()
	switch {
	case l.job.what != "":
		p.Reason = l.job.what
	case l.pin != nil:
		p.Reason = fmt.Sprintf("generation %d is pinned", l.pin.Generation)
	case earliest.After(due) && time.Now().Before(earliest):
		p.Reason = fmt.Sprintf("%s still busy; the next reload is at %s", are(l.governor.old, "old worker"), earliest.Format(time.TimeOnly))
	case l.failure != nil && l.failure.culprits != "":
		p.Reason = fmt.Sprintf("%s for %s, whose change is being removed", verdict(l.failure.err), l.failure.culprits)
	case l.failure != nil:
		p.Reason = fmt.Sprintf("%s; next attempt at %s", verdict(l.failure.err), l.failure.next.Format(time.TimeOnly))
	default:
		p.Reason = "waiting for further changes to settle"
	}
	if l.failure != nil {
		p.Since = l.failure.since
	}
	if p.Since.IsZero() {
		p.Since = l.since
	}
	return p
}

// instancesChange is the text of a change that is only known to be one of instances.
const instancesChange = "the lists of instances"

// movingChange returns the servers that nginx has yet to fetch or use as a pending change,
// nil for none. Weights of slow starts are no pending change.
func (l *loop) movingChange() *PendingChange {
	d := l.delivery
	if d.moving == nil || d.moving.onlySteps() {
		outdated := d.outdated()
		if len(outdated) == 0 {
			return nil
		}
		return &PendingChange{
			Since:  d.bootstrap.since,
			Change: instancesChange,
			Reason: fmt.Sprintf("nginx still uses the instances that it started with for %s, among them %q, until it has fetched newer ones",
				plural(len(outdated), "upstream"), outdated[0]),
		}
	}
	p := &PendingChange{Since: d.moving.since, Change: instancesChange, Reason: "nginx has not fetched them yet"}
	if d.moving.before == nil {
		return p
	}
	change := l.summaries.changes(d.moving.before, l.movedTo(d.moving))
	if change != noChange || !d.moving.partial {
		p.Change, p.Reason = change, "nginx has yet to fetch it"
	}
	return p
}

// verdict describes why a configuration was not applied.
func verdict(err error) string {
	switch kindOf(err) {
	case history.Rejected:
		return "nginx refused it"
	case history.RolledBack:
		return "nginx did not accept it"
	case history.NoWayBack:
		return "nginx did not accept it, nor the previous one"
	default:
		return "it could not be applied"
	}
}

// Status returns the current state. It asks nginx, and waits at most two seconds for the
// answer.
func (c *Controller) Status(ctx context.Context) Status {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	serving, servingErr := c.server.Serving(asking)
	v := c.shown()
	for range 2 {
		if servingErr != nil || serving == v.current.Number || v.busy != "" {
			break
		}
		// A change may have ended after nginx answered and before the view was read.
		// After a restart of lbctl an old worker may still answer.
		select {
		case <-asking.Done():
		case <-time.After(150 * time.Millisecond):
		}
		serving, servingErr = c.server.Serving(asking)
		v = c.shown()
	}
	processes, processesErr := c.server.Processes()
	source := c.source.Status()
	unfetched := unfetched(c.opts.Endpoints, v.asked, v.askedSince)
	if v.pending == nil && v.known && v.asked != nil && processesErr == nil && processes.Master != v.master {
		v.pending = &PendingChange{Since: processes.Master.Started, Change: instancesChange, Reason: "nginx has just started, and has not fetched them yet"}
	}

	s := Status{
		Version: c.opts.Version,
		Started: c.started,
		Nginx: Nginx{
			Version:       c.server.Build().Version,
			Running:       processesErr == nil,
			PID:           processes.Master.PID,
			Workers:       len(processes.Workers),
			WorkersReason: c.opts.WorkersNote,
			OldWorkers:    len(processes.OldWorkers),
		},
		Consul:     source.Consul,
		Services:   v.services,
		Instances:  v.instances,
		Pending:    v.pending,
		Frozen:     v.pin,
		LastApply:  v.last,
		LastChange: c.history.LastChange(),

		Certificates: source.Certificates,
		Endpoints:    v.endpoints(unfetched, c.opts.EndpointsNote),
		Policies:     v.policies,
		Access:       Documents{Index: source.AccessIndex, ServedIndex: v.accessServed},
	}
	s.Policies.Prefix, s.Access.Prefix = c.opts.PolicyKeys, c.opts.AccessKeys
	if !v.known && v.asked != nil && len(source.Entries) > 0 {
		// The generation's numbers are from the time when it was made.
		s.Services, s.Instances = count(source.Entries)
	}
	for _, p := range processes.OldWorkers {
		s.Nginx.OldWorkersMemory += p.Memory
		if since := &s.Nginx.OldWorkersSince; since.IsZero() || p.Retired.Before(*since) {
			*since = p.Retired
		}
	}
	if servingErr == nil {
		s.Nginx.Generation = serving
		if serving == v.current.Number {
			s.Nginx.Since = v.since
			if processes.Master.Started.After(v.since) {
				s.Nginx.Since = processes.Master.Started
			}
		}
	}
	s.Problems = v.problems(serving, servingErr, s.Nginx.Running)
	if p := unfetchedProblem(unfetched, time.Now()); p != nil && servingErr == nil {
		s.Problems = append(s.Problems, *p)
	}
	s.Problems = append(s.Problems, v.pinned().relevant(source.Problems, source.Entries)...)
	v.started = c.started
	s.State, s.Summary = v.summarize(time.Now(), serving, servingErr, source, s.Problems)
	if servingErr == nil && !s.Nginx.Running && s.State != Frozen {
		s.State, s.Summary = Degraded, fmt.Sprintf("nginx serves generation %d, but %s", serving, masterGone)
	}
	return s
}

func (c *Controller) setView(v view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view = v
}

func (c *Controller) shown() view {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

// masterGone is what is wrong with an nginx that answers and has no master process.
const masterGone = "its master process is gone, as after kill -9: its workers go on, but take no change until nginx is started again"

// problems returns the problems that the loop knows. The source reports its own.
func (v view) problems(serving int, servingErr error, running bool) []render.Problem {
	var ps []render.Problem
	if servingErr != nil && v.current.Number > 0 {
		p := render.Problem{Subject: "nginx", Message: v.noAnswer(servingErr)}
		if running {
			p.Message += "; its master process runs"
		}
		if v.down != nil {
			p.Since = v.down.since
		}
		ps = append(ps, p)
	}
	if servingErr == nil && !running {
		ps = append(ps, render.Problem{Subject: "nginx", Message: masterGone})
	}
	if f := v.bootstrapFailed; f != nil {
		ps = append(ps, render.Problem{Subject: "nginx", Message: f.err.Error(), Since: f.since})
	}
	for _, service := range slices.Sorted(maps.Keys(v.bootstrapLeft)) {
		f := v.bootstrapLeft[service]
		ps = append(ps, render.Problem{Subject: "service " + service, Message: f.err.Error(), Since: f.since})
	}
	for _, f := range []*failure{v.failure, v.drifted} {
		if f == nil {
			continue
		}
		ps = append(ps, render.Problem{
			Subject: "nginx",
			Message: fmt.Sprintf("%s (%s, the next at %s)", f.err, plural(f.attempts, "attempt"), f.next.Format(time.TimeOnly)),
			Since:   f.since,
		})
	}
	return ps
}

// startPatience is how long after lbctl's start Consul may take to answer for the first time.
// On a load balancer its agent starts together with lbctl.
const startPatience = 10 * time.Second

// summarize returns the state and a sentence about it. The worst condition wins.
func (v view) summarize(now time.Time, serving int, servingErr error, source render.Status, problems []render.Problem) (State, string) {
	away := consulAway(source.Consul, now)
	if v.current.Number == 0 {
		switch {
		case v.failure != nil:
			return Degraded, "nginx serves nothing yet: the first configuration failed: " + v.failure.err.Error()
		case away != "" && !v.known:
			return Starting, "nginx serves nothing yet: " + away
		case len(problems) > 0:
			return Starting, "nginx serves nothing yet: " + quote(problems)
		default:
			return Starting, "nginx serves nothing yet: the first configuration is on its way"
		}
	}
	if servingErr != nil {
		return Down, v.noAnswer(servingErr)
	}
	serves := fmt.Sprintf("nginx serves generation %d", serving)
	since := serves + " of " + clock(v.since, now)
	if serving != v.current.Number && v.busy == "" {
		why := "; lbctl notices that within seconds and corrects it"
		if v.drifted != nil {
			why = ": " + oneLine(v.drifted.err)
		}
		return Degraded, fmt.Sprintf("%s instead of %d%s", serves, v.current.Number, why)
	}
	switch {
	case v.pin != nil:
		waits := ""
		if v.pending != nil {
			waits = "; a change waits (" + v.pending.Change + ")"
		}
		at := ""
		if !v.pin.Since.IsZero() {
			at = " at " + clock(v.pin.Since, now)
		}
		return Frozen, fmt.Sprintf("%s, pinned by a rollback%s%s; 'lbctl resume' follows Consul again", serves, at, waits)
	case v.failure != nil:
		return Degraded, fmt.Sprintf("%s, not the newest: %s", since, oneLine(v.failure.err))
	case v.drifted != nil:
		return Degraded, fmt.Sprintf("%s; %s", serves, oneLine(v.drifted.err))
	case v.pending == nil && v.busy != "":
		return Pending, serves + "; " + v.busy
	case v.pending != nil:
		return Pending, fmt.Sprintf("%s; a change is on its way (%s)", serves, v.pending.Change)
	case v.awaitsAgent(now, source, problems):
		return Starting, fmt.Sprintf("%s, made before lbctl started; lbctl is starting, and has no answer from Consul yet: %s",
			since, away)
	case away != "":
		return Degraded, fmt.Sprintf("%s; nginx serves Consul's last answer, generation %d of %s", away, serving, clock(v.since, now))
	case !v.known && len(problems) > 0:
		return Degraded, fmt.Sprintf("%s, made before lbctl started; %s", since, quote(problems))
	case !v.known:
		return Starting, fmt.Sprintf("%s, made before lbctl started; Consul's answer is on its way", since)
	}
	if bad := generalProblems(problems); len(bad) > 0 {
		return Degraded, fmt.Sprintf("%s, which may differ from what Consul says: %s", serves, quote(bad))
	}
	if held := heldBack(source.Entries); held != "" {
		return Serving, serves + "; " + held
	}
	if len(problems) > 0 {
		return Serving, fmt.Sprintf("%s, which is what Consul says, with %s: %s", serves, plural(len(problems), "problem"), quote(problems))
	}
	return Serving, serves + ", which is what Consul says"
}

// awaitsAgent reports whether lbctl has just started and Consul has not answered yet, while
// nothing else is wrong.
func (v view) awaitsAgent(now time.Time, source render.Status, problems []render.Problem) bool {
	if v.known || source.Consul.Refused || now.Sub(v.started) >= startPatience {
		return false
	}
	bad := generalProblems(problems)
	other := slices.ContainsFunc(bad, func(p render.Problem) bool { return p.Subject != "consul" })
	return !other && consulAway(source.Consul, now) != ""
}

// consulAway describes what is wrong with Consul, "" if nothing is.
func consulAway(s consul.Status, now time.Time) string {
	if s.Since.IsZero() || s.Up() {
		return "" // not asked yet, or healthy
	}
	return fmt.Sprintf("%s (since %s)", consulFault(s), clock(s.Since, now))
}

// consulFault describes what is wrong with a Consul that is away.
func consulFault(s consul.Status) string {
	switch {
	case s.LastError != "":
		return strings.ReplaceAll(s.LastError, "\n", "; ")
	case s.Reachable:
		return "Consul has no leader"
	default:
		return "Consul does not answer"
	}
}

// generalProblems returns the problems that affect more than one service: those of Consul, the
// templates and nginx. A problem of one service is its owner's: other services don't wait
// for it. New credentials that can't be used affect nothing while the former ones are valid,
// and the same is true for certificates and policies.
func generalProblems(problems []render.Problem) []render.Problem {
	var bad []render.Problem
	for _, p := range problems {
		single := strings.HasPrefix(p.Subject, "service ") || strings.HasPrefix(p.Subject, render.PolicySubject) ||
			strings.HasPrefix(p.Subject, render.CertificatesSubject)
		if !single && p.Subject != render.CredentialsSubject {
			bad = append(bad, p)
		}
	}
	return bad
}

// heldBack describes the services that are not served as they are in Consul, by state:
// "1 service is quarantined (api: nginx refuses it); 2 services are held (web:
// 3 kept in rotation, and 1 more)". It returns "" if there are none.
func heldBack(entries []endpoints.Entry) string {
	var states []endpoints.State
	first := map[endpoints.State]endpoints.Entry{}
	number := map[endpoints.State]int{}
	for _, e := range entries {
		if e.State == endpoints.Fresh {
			continue
		}
		if number[e.State]++; number[e.State] == 1 {
			states = append(states, e.State)
			first[e.State] = e
		}
	}
	slices.Sort(states)
	slices.Reverse(states) // quarantined first, since that state doesn't end by itself
	var parts []string
	for _, state := range states {
		n, e := number[state], first[state]
		why := e.Name + ": " + strings.ReplaceAll(e.Reason, "\n", "; ")
		if output := e.FailingCheck(); output != "" && state == endpoints.Panic {
			why += "; " + output
		}
		if n > 1 {
			why += fmt.Sprintf(", and %d more", n-1)
		}
		word := string(state)
		if state == endpoints.Panic {
			word = "in panic"
		}
		parts = append(parts, fmt.Sprintf("%s %s (%s)", are(n, "service"), word, why))
	}
	return strings.Join(parts, "; ")
}

// quote returns the first problem, and the number of the others.
func quote(ps []render.Problem) string {
	s := ps[0].Subject + ": " + strings.ReplaceAll(ps[0].Message, "\n", "; ")
	if more := len(ps) - 1; more > 0 {
		s += fmt.Sprintf(" (and %s)", plural(more, "more problem"))
	}
	return s
}

// noAnswer says why nginx does not answer. The error of the last apply, if there is one,
// says more than err.
func (v view) noAnswer(err error) string {
	if v.down != nil {
		err = v.down.err
	}
	said := oneLine(err)
	if !errors.Is(err, nginx.ErrNotRunning) {
		said = "nginx does not answer: " + said
	}
	if strings.HasPrefix(said, "generation ") {
		return said
	}
	return fmt.Sprintf("%s; it will serve generation %d once it answers", said, v.current.Number)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// clock returns the time of day, with the date unless it is today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
