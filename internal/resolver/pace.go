package resolver

import (
	"context"
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

// pace spreads events in time.
type pace struct{ limiter *rate.Limiter }

func newPace(perSecond rate.Limit, atOnce int) pace { return pace{rate.NewLimiter(perSecond, atOnce)} }

// wait lets n events pass, or as many as may be at once.
func (p pace) wait(n int) {
	_ = p.limiter.WaitN(context.Background(), min(n, p.limiter.Burst())) // so it can't fail
}

// paces is one pace for each of nginx's sockets. The zero value is ready.
type paces struct {
	mu    sync.Mutex
	by    map[string]*socketPace
	swept time.Time
}

type socketPace struct {
	pace
	used time.Time
}

// paceTTL is how long a socket is remembered; after much less it starts afresh
// anyway.
const paceTTL = 10 * time.Second

func (p *paces) of(socket string) pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.swept) > paceTTL {
		for name, s := range p.by {
			if now.Sub(s.used) > paceTTL {
				delete(p.by, name)
			}
		}
		p.swept = now
	}
	s := p.by[socket]
	if s == nil {
		if p.by == nil {
			p.by = map[string]*socketPace{}
		}
		s = &socketPace{pace: newPace(answersPerSecond, answersAtOnce)}
		p.by[socket] = s
	}
	s.used = now
	return s.pace
}
