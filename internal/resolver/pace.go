package resolver

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What is lost on the way between nginx and the Server, nginx asks for again
// after five seconds only, and with a thousand upstreams or servers a socket's
// buffer is soon full: Linux has room for some 270 small packets by default.
const (
	// questionsPerSecond and questionsAtOnce bound what comes in.
	questionsPerSecond = 25000
	questionsAtOnce    = 128
	// answersPerSecond and answersAtOnce bound what goes to one of nginx's sockets:
	// a worker that gets no processor for 50 ms still loses none.
	answersPerSecond = 4000
	answersAtOnce    = 64
)

// Bounds of the answers that wait for their turn, so that nobody's questions take all
// memory. A question beyond them is dropped: nginx asks again after five seconds. An
// upstream has up to 2,000 servers, each with an A and an AAAA question.
const (
	maxTurns       = 8192
	maxSocketTurns = 4096
	maxSockets     = 16384 // that are remembered
)

// pace spreads events in time.
type pace struct{ limiter *rate.Limiter }

func newPace(perSecond rate.Limit, atOnce int) pace { return pace{rate.NewLimiter(perSecond, atOnce)} }

// wait lets n events pass, or as many as may be at once. The error is ctx's.
func (p pace) wait(ctx context.Context, n int) error {
	return p.limiter.WaitN(ctx, min(n, p.limiter.Burst()))
}

// inTurn calls answer after n questions more may come in; with none, when the next
// answer may go to the socket. It does so beside the caller if the client is not one
// over TCP. It reports false if too many wait already.
func (s *Server) inTurn(c client, n int, answer func()) bool {
	to := s.turns.enter(c.address)
	if to == nil {
		if s.logging.due(tooMany) {
			s.logger.Warn("too many DNS questions wait to be answered, some are dropped",
				"limit", maxTurns, "limit_of_socket", maxSocketTurns, "limit_of_sockets", maxSockets)
		}
		return false
	}
	run := func() {
		defer s.recovered()
		defer s.turns.leave(to)
		var err error
		if n > 0 {
			err = s.questions.wait(s.ctx, n)
		} else {
			err = to.pace.wait(s.ctx, 1)
		}
		if err == nil {
			answer()
		}
	}
	if c.tcp {
		run()
	} else {
		go run()
	}
	return true
}

// turns is the answers that wait, and the sockets they are for.
type turns struct {
	mu     sync.Mutex
	by     map[netip.AddrPort]*socket
	swept  time.Time
	n      int
	closed bool
	all    sync.WaitGroup
}

// socket is one of nginx's.
type socket struct {
	pace pace // of answers about targets
	used time.Time
	n    int // answers that wait
}

// socketTTL is how long a socket is remembered; after much less its pace starts
// afresh anyway.
const socketTTL = 10 * time.Second

// socket is nil if there are too many.
func (t *turns) socket(address netip.AddrPort) *socket {
	now := time.Now()
	if now.Sub(t.swept) > socketTTL {
		for address, s := range t.by {
			if s.n == 0 && now.Sub(s.used) > socketTTL {
				delete(t.by, address)
			}
		}
		t.swept = now
	}
	s := t.by[address]
	if s == nil {
		if len(t.by) >= maxSockets {
			return nil
		}
		s = &socket{pace: newPace(answersPerSecond, answersAtOnce)}
		t.by[address] = s
	}
	s.used = now
	return s
}

// enter adds an answer that waits, until leave. It is nil if there are too many, or no
// more at all.
func (t *turns) enter(address netip.AddrPort) *socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.socket(address)
	if s == nil || t.closed || t.n >= maxTurns || s.n >= maxSocketTurns {
		return nil
	}
	t.n++
	s.n++
	t.all.Add(1)
	return s
}

func (t *turns) leave(s *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	s.n--
	t.all.Done()
}

// close waits for the answers that wait, and lets no more in.
func (t *turns) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.all.Wait()
}
