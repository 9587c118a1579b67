package resolver

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"time"
)

// upstream is what the Server knows of one.
type upstream struct {
	query   string // SRV name
	targets []Target
	version int       // goes up with targets; 0: none are known
	answer  []byte    // over UDP; without the question's id
	whole   bool      // answer has all targets
	since   time.Time // when they became its targets
	askers  map[netip.AddrPort]*asker
}

func newUpstream(query string) *upstream {
	return &upstream{query: query, askers: map[netip.AddrPort]*asker{}}
}

func (u *upstream) set(targets []Target, now time.Time) {
	u.targets = targets
	u.version++
	u.since = now
	u.answer, u.whole = pack(u.query, targets)
}

// isFetched reports whether everybody who asks has taken the newest servers, and
// somebody does ask.
func (u *upstream) isFetched(now time.Time) bool {
	somebody := false
	for _, a := range u.askers {
		if a.old || !a.alive(now) {
			continue
		}
		if a.fetched < u.version {
			return false
		}
		somebody = true
	}
	return somebody
}

// asker finds or adds who asks from a socket. Beyond maxAskers nobody is remembered:
// who asks then is answered at once each time.
func (u *upstream) asker(c client, now time.Time) *asker {
	if a := u.askers[c.address]; a != nil {
		return a
	}
	a := &asker{client: c, patience: parkFor}
	u.forget(now, rememberFor)
	if len(u.askers) >= maxAskers {
		u.forget(now, aliveFor)
	}
	if len(u.askers) < maxAskers {
		u.askers[c.address] = a
	}
	return a
}

// forget drops those of whom nothing was heard for so long.
func (u *upstream) forget(now time.Time, silent time.Duration) {
	maps.DeleteFunc(u.askers, func(_ netip.AddrPort, a *asker) bool { return now.Sub(a.heard) > silent })
}

// asker is who asks for an upstream: a socket of one of nginx's workers. It has one
// question at a time.
type asker struct {
	client
	id        uint16    // of its question
	asked     time.Time // when that came
	heard     time.Time // when the last packet came
	until     time.Time // how long its question is parked, if it is
	patience  time.Duration
	sent      int // the version that its question was answered with; 0 while it is not
	sentAt    time.Time
	answering bool // its question waits for its turn to be answered
	fetched   int  // the newest version it has certainly fetched
	old       bool // it was there before the last reload
}

func (a *asker) alive(now time.Time) bool { return now.Sub(a.heard) <= aliveFor }

// ask takes note of a packet, which has a new question or a copy of the last one. It
// reports whether the question is to be answered now; else it is parked.
func (a *asker) ask(id uint16, version int, now time.Time) bool {
	if isCopy := !a.heard.IsZero() && id == a.id; !isCopy {
		switch {
		case a.sent != 0:
			// The next question shows that the answer to the last one was taken.
			a.fetched = a.sent
		case a.parked() && !a.heard.IsZero():
			// nginx has given the last one up: its resolver_timeout is not Timeout, as
			// in a template of an operator's own.
			a.patience = a.heard.Sub(a.asked) / 2
		}
		a.id, a.asked, a.sent = id, now, 0
		// All upstreams at once would be too much, and nginx starts with all of them.
		a.until = now.Add(a.patience - time.Duration(rand.Int64N(1+int64(a.patience/10))))
	}
	a.heard = now
	switch {
	case a.answering:
		return false
	case a.sent != 0: // the answer got lost
		return now.Sub(a.sentAt) >= copyPause
	default:
		// One that has been parked for long is answered right after a copy of it, when
		// no other copy is on its way.
		return a.fetched != version || !now.Before(a.until)
	}
}

func (a *asker) parked() bool { return a.sent == 0 && !a.answering }
