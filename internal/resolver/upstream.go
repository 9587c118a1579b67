package resolver

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"time"
)

// upstream is an upstream with its servers and those who ask for it.
type upstream struct {
	query   string // SRV name
	targets []Target
	version int       // of targets; 0: unknown
	answer  []byte    // over UDP; without the question's id
	whole   bool      // answer has all targets
	since   time.Time // when targets changed, or when a reload made nginx fetch them again
	askers  map[netip.AddrPort]*asker
	awaited []awaited // versions that nginx has not certainly fetched, the oldest first
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

// isFetched reports whether all askers have fetched the newest servers, and there is at
// least one.
func (u *upstream) isFetched(now time.Time) bool {
	asking := false
	for _, a := range u.askers {
		if a.old || !a.alive(now) {
			continue
		}
		if a.fetched < u.version {
			return false
		}
		asking = true
	}
	return asking
}

// asker returns the asker at a socket, a new one if there is none. A new one beyond
// maxAskers is not remembered, so each of its questions is answered at once.
func (u *upstream) asker(c client, now time.Time) *asker {
	if a := u.askers[c.address]; a != nil {
		return a
	}
	a := &asker{client: c, came: now, patience: parkFor}
	u.forget(now, rememberFor)
	if len(u.askers) >= maxAskers {
		u.forget(now, aliveFor)
	}
	if len(u.askers) < maxAskers {
		u.askers[c.address] = a
	}
	return a
}

// forget drops the askers that have been silent for longer than that.
func (u *upstream) forget(now time.Time, silent time.Duration) {
	maps.DeleteFunc(u.askers, func(_ netip.AddrPort, a *asker) bool { return now.Sub(a.heard) > silent })
}

// asker is a socket of one of nginx's workers that asks for an upstream. It has one
// question at a time.
type asker struct {
	client
	came      time.Time     // when its first packet came
	id        uint16        // of its question
	asked     time.Time     // when the question came
	heard     time.Time     // when the last packet came
	until     time.Time     // until when its question is parked, if it is
	patience  time.Duration // how long its questions are parked
	sent      int           // the version in the answer to its question; 0: not answered
	sentAt    time.Time
	answering bool      // its answer waits for its turn
	fetched   int       // the newest version it has certainly fetched
	usedAt    time.Time // when it had fetched it
	old       bool      // it was there before the last reload
}

func (a *asker) alive(now time.Time) bool { return now.Sub(a.heard) <= aliveFor }

// ask records a packet with a new question or a copy of the last one. It reports whether
// the question is to be answered now; otherwise it stays parked.
func (a *asker) ask(id uint16, version int, now time.Time) bool {
	if isCopy := !a.heard.IsZero() && id == a.id; !isCopy {
		switch {
		case a.sent != 0:
			// The next question shows that nginx has fetched the answer to the last one.
			a.fetched, a.usedAt = a.sent, a.used(now)
		case a.parked() && !a.heard.IsZero():
			// nginx has given up the last question: an operator's own template has a
			// shorter resolver_timeout.
			a.patience = a.heard.Sub(a.asked) / 2
		}
		a.id, a.asked, a.sent = id, now, 0
		// nginx asks for all upstreams when it starts; the times differ so that their
		// questions don't end at the same time.
		a.until = now.Add(a.patience - time.Duration(rand.Int64N(1+int64(a.patience/10))))
	}
	a.heard = now
	switch {
	case a.answering:
		return false
	case a.sent != 0: // the answer may have got lost
		return now.Sub(a.sentAt) >= copyPause
	default:
		// A question at the end of its time is answered right after a copy, when no other
		// copy is on its way.
		return a.fetched != version || !now.Before(a.until)
	}
}

func (a *asker) parked() bool { return a.sent == 0 && !a.answering }
