// Package resolver tells nginx the servers of its upstreams: it answers nginx's DNS
// questions.
package resolver

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"lbctl/internal/measure"
)

// DefaultListen is the default address of a Server.
const DefaultListen = "127.0.0.1:9153"

// Timeout is the value that nginx's directive resolver_timeout must have: how long nginx
// waits for an answer. It is longer than a question is parked, and longer than lbctl is
// likely to be away. If nginx gives up a question, it waits as long again before it asks
// the next one.
const Timeout = time.Hour

const (
	// parkFor is the maximum time that a question is parked.
	parkFor = 5 * time.Minute
	// aliveFor is how long after its last packet an asker counts as alive. nginx sends a
	// copy of its question every five seconds; one may get lost.
	aliveFor = 12 * time.Second
	// rememberFor is how long after its last packet an asker is remembered. An nginx with
	// a short resolver_timeout is silent for that time after it gives up a question.
	rememberFor = 3 * time.Minute
	// copyPause is how long after an answer copies of its question are ignored, since they
	// may have crossed the answer. nginx logs an answer that it gets twice.
	copyPause = time.Second
	// maxAskers bounds the askers of an upstream: nginx has one for each generation of
	// workers that has not ended.
	maxAskers = 64
	// maxUnknown bounds the unknown upstreams whose questions are parked. The questions of
	// others are dropped; nginx sends copies of them.
	maxUnknown = 4096
)

// Server answers nginx's DNS questions for the servers of its upstreams with SRV records
// whose target names contain the address. nginx asks again a second after each answer. The
// Server parks a question until the servers change, so a change reaches nginx at once.
// Meanwhile nginx sends a copy of the question every five seconds, which shows that it is
// still there.
//
// The Server also parks a question for an upstream that it doesn't know yet, so that nginx
// keeps the servers it has. After an error like SERVFAIL nginx would wait for Timeout
// before it asks again.
type Server struct {
	logger  *slog.Logger
	fetched chan struct{}
	udp     *net.UDPConn
	tcp     net.Listener
	ctx     context.Context // ends with Run; every wait ends with it
	stop    context.CancelFunc

	questions pace // of the questions that nginx asks because of an answer
	turns     turns
	logging   logging
	delays    measure.Durations // see Convergence

	mu        sync.Mutex
	upstreams map[string]*upstream // by SRV name
	names     map[string]*upstream // by the upstream's own name
	restarted time.Time            // when nginx last restarted; zero: not known
}

// New makes a Server. It answers after Listen, while Run runs. The logger may be nil, for
// no log.
func New(logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Server{
		logger:    logger,
		fetched:   make(chan struct{}, 1),
		ctx:       ctx,
		stop:      stop,
		questions: newPace(questionsPerSecond, questionsAtOnce),
		turns:     turns{by: map[netip.AddrPort]*socket{}},
		upstreams: map[string]*upstream{},
		names:     map[string]*upstream{},
	}
}

// Set replaces the servers of all upstreams. Upstreams that are missing become unknown. The
// targets of an upstream must have different addresses and must fit (see Fits). The caller
// must not change them any more. seen is when lbctl got the answer of Consul that they follow
// from, for Convergence; zero if they follow from something else.
func (s *Server) Set(upstreams map[string][]Target, seen time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for name, targets := range upstreams {
		u := s.names[name]
		if u != nil && SameTargets(u.targets, targets) {
			continue
		}
		if u == nil {
			query := srvPrefix + Host(name) + "."
			if u = s.upstreams[query]; u == nil {
				u = newUpstream(query)
				s.upstreams[query] = u
			}
			s.names[name] = u
		}
		u.set(targets, now)
		u.await(seen, now)
		s.answerParked(u, now)
	}
	if len(s.names) == len(upstreams) {
		return // none is missing
	}
	for name, u := range s.names {
		if _, ok := upstreams[name]; !ok {
			delete(s.names, name)
			if s.upstreams[u.query] == u {
				delete(s.upstreams, u.query)
			}
		}
	}
}

// Reloading must be called before nginx reloads, and the function that it returns once the
// new workers serve. From then on Unfetched and Fetched ignore the old workers. The Server
// still answers their questions.
func (s *Server) Reloading() (reloaded func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before []*asker
	var fetched []*upstream // the others go on waiting
	now := time.Now()
	for _, u := range s.upstreams {
		if u.isFetched(now) {
			fetched = append(fetched, u)
		}
		for _, a := range u.askers {
			before = append(before, a)
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		now := time.Now()
		for _, u := range fetched {
			u.since = now
		}
		for _, a := range before {
			a.old = true
		}
	}
}

// Restarted must be called when nginx has restarted: it then has no servers. after is a
// time before the restart, as late as is known. Askers that came later are the new nginx's;
// the Server forgets all others.
func (s *Server) Restarted(after time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarted = time.Now()
	for _, u := range s.upstreams {
		maps.DeleteFunc(u.askers, func(_ netip.AddrPort, a *asker) bool { return a.came.Before(after) })
	}
}

// Unfetched returns the upstreams whose newest servers nginx has not certainly fetched. It
// is certain once nginx asks the next question, a second after the answer. The time is that
// of the change of servers, or that of a later reload or restart of nginx, after which it
// fetches them again.
func (s *Server) Unfetched() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	unfetched := map[string]time.Time{}
	now := time.Now()
	for name, u := range s.names {
		if !u.isFetched(now) {
			unfetched[name] = u.since
			if s.restarted.After(u.since) {
				unfetched[name] = s.restarted
			}
		}
	}
	return unfetched
}

// Known reports whether nginx has servers of the upstream: it has fetched an answer and is
// still asking. It keeps the servers over reloads.
func (s *Server) Known(name string) bool {
	return s.hasAsker(name, func(a *asker) bool { return a.fetched > 0 })
}

// Asks reports whether nginx asks for an upstream: it does so right after a reload, and
// then at least every five seconds.
func (s *Server) Asks(name string) bool {
	return s.hasAsker(name, func(*asker) bool { return true })
}

// hasAsker reports whether the upstream has an asker that fits and is alive.
func (s *Server) hasAsker(name string, fits func(*asker) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.names[name]
	if u == nil {
		return false
	}
	now := time.Now()
	for _, a := range u.askers {
		if fits(a) && a.alive(now) {
			return true
		}
	}
	return false
}

// Fetched fires when nginx has certainly fetched the newest servers of an upstream.
func (s *Server) Fetched() <-chan struct{} { return s.fetched }
