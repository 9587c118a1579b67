package resolver

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// nginx asks again for a lost packet only after five seconds, and with a thousand upstreams
// or servers a socket's buffer is soon full: by default Linux has room for some 270 small
// packets. So both directions are paced.
const (
	// questionsPerSecond and questionsAtOnce bound the questions that nginx sends.
	questionsPerSecond = 25000
	questionsAtOnce    = 128
	// answersPerSecond and answersAtOnce bound the answers to one of nginx's sockets: even
	// a worker that gets no processor for 50 ms loses none.
	answersPerSecond = 4000
	answersAtOnce    = 64
)

// Bounds of the answers that wait for their turn, so that no process can use up the memory
// with questions. A question beyond them is dropped: nginx asks again after five seconds. An
// upstream has up to 2,000 servers, and nginx asks an A and an AAAA question for each.
const (
	maxTurns       = 8192
	maxSocketTurns = 4096
	maxSockets     = 16384
)

// pace spreads events in time.
type pace struct{ limiter *rate.Limiter }

func newPace(perSecond rate.Limit, atOnce int) pace { return pace{rate.NewLimiter(perSecond, atOnce)} }

// wait waits until n events may happen, or the maximum at once if n is more. The error is
// ctx's.
func (p pace) wait(ctx context.Context, n int) error {
	return p.limiter.WaitN(ctx, min(n, p.limiter.Burst()))
}

// inTurn calls answer when nginx may send n more questions, or, if n is 0, when the next
// answer may go to the socket. For a client over UDP it does so in a goroutine. It returns
// false if too many answers are waiting already.
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

// turns counts the waiting answers, in total and for each socket.
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

// socketTTL is how long an unused socket is remembered. By then its pace allows the maximum
// at once again anyway.
const socketTTL = 10 * time.Second

// socket returns the state of a socket; nil if there are too many.
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

// enter adds a waiting answer, until leave. It returns nil if there are too many, or after
// close.
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

// close makes enter return nil, and waits for the waiting answers.
func (t *turns) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.all.Wait()
}
