// Package resolver answers the questions of nginx's resolver: by DNS, which servers
// an upstream has.
package resolver

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// DefaultListen is where a Server listens unless told otherwise.
const DefaultListen = "127.0.0.1:9153"

// Timeout is what nginx's directive resolver_timeout must say: how long nginx waits
// for an answer. It is longer than a question is parked, and than lbctl is likely to
// be away: when nginx gives a question up, it asks the next one as much later again.
const Timeout = time.Hour

const (
	// parkFor is how long a question is parked at most.
	parkFor = 5 * time.Minute
	// aliveFor is how long after its last packet somebody is taken to be there still.
	// nginx sends a copy of its question every five seconds; one may get lost.
	aliveFor = 12 * time.Second
	// rememberFor is how long it is remembered then. An nginx whose resolver_timeout is
	// short is silent for as long again when it gives a question up.
	rememberFor = 3 * time.Minute
	// copyPause is for how long after an answer a copy of its question is taken to
	// have been on its way already. nginx logs an answer that it gets twice.
	copyPause = time.Second
	// maxAskers bounds who is remembered for an upstream: in nginx one worker asks
	// for it, and old workers until they have ended.
	maxAskers = 64
	// maxUnknown bounds for how many unknown upstreams questions are parked; others are
	// dropped, and nginx sends copies of them.
	maxUnknown = 4096
)

// Server answers nginx's questions for the servers of its upstreams, by DNS: SRV
// records with names that say the address. nginx asks again a second after each
// answer. A question for which there is nothing new is parked until there is, so
// changes reach nginx at once. nginx sends a copy of it every five seconds meanwhile,
// which shows that it is still there.
//
// A question for an upstream that the Server doesn't know yet is parked as well:
// nginx keeps the servers it has. An error like SERVFAIL would have nginx wait for
// Timeout before it asks again.
type Server struct {
	logger  *slog.Logger
	fetched chan struct{}
	udp     *net.UDPConn
	tcp     net.Listener
	ctx     context.Context // ends with Run; every wait ends with it
	stop    context.CancelFunc

	questions pace // of those that answers make nginx ask next
	turns     turns
	logging   logging

	mu        sync.Mutex
	upstreams map[string]*upstream // by SRV name
	names     map[string]*upstream // by the upstream's own name
	restarted time.Time            // when nginx was last; zero: not known
}

// New makes a Server that answers once it listens and Run runs. The logger may be
// nil, for no log.
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

// Set says which servers each upstream has. Upstreams that are missing are unknown
// from now on. Of the targets of an upstream no two may have the same address, they
// must fit (see Fits), and nobody may change them any more.
func (s *Server) Set(upstreams map[string][]Target) {
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
		s.answerParked(u, now)
	}
	if len(s.names) == len(upstreams) {
		return // there are no others
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

// Reloading is to be called before nginx is told to reload, and what it returns when
// new workers serve: the old ones then count no longer for what nginx has fetched.
// Their questions are still answered.
func (s *Server) Reloading() (reloaded func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before []*asker
	for _, u := range s.upstreams {
		for _, a := range u.askers {
			before = append(before, a)
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, a := range before {
			a.old = true
		}
	}
}

// Restarted says that nginx is a new one, which has no servers yet.
func (s *Server) Restarted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarted = time.Now()
	for _, u := range s.upstreams {
		clear(u.askers) // the new one's are heard of again within five seconds
	}
}

// Unfetched is the upstreams whose newest servers nginx has not certainly fetched, and
// since when they have them, or nginx was restarted, if that was later. nginx has
// certainly fetched an answer when it asks the next question, a second later.
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

// Known reports whether nginx has servers of the upstream: it has taken an answer
// and goes on asking. It keeps them over reloads.
func (s *Server) Known(name string) bool {
	return s.hasAsker(name, func(a *asker) bool { return a.fetched > 0 })
}

// Asks reports whether nginx asks for an upstream. It does after a reload at once, and
// then sends a packet every five seconds at least.
func (s *Server) Asks(name string) bool {
	return s.hasAsker(name, func(*asker) bool { return true })
}

// hasAsker reports whether an asker of the upstream that fits is still there.
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

// Fetched fires when nginx has fetched the newest servers of an upstream.
func (s *Server) Fetched() <-chan struct{} { return s.fetched }
