package resolver

import (
	"time"

	"lbctl/internal/measure"
)

// askPause is how long after it has the servers of an answer nginx asks again.
const askPause = time.Second

// maxAwaited bounds the versions of an upstream that are measured at a time. nginx fetches one a
// second, so there are more only if it has stopped asking.
const maxAwaited = 32

// awaited is a version of an upstream's servers that follows from an answer of Consul.
type awaited struct {
	version int
	seen    time.Time // when lbctl got the answer
}

// Convergence returns how long it took from an answer of Consul until nginx had the servers that
// follow from it, for each upstream that changed. It is measured once it is certain; Unfetched
// says when that is. Upstreams that nginx did not ask for at the time of the answer don't count:
// it gets the servers of those by a reload, or when it starts.
func (s *Server) Convergence() measure.Histogram { return s.delays.Histogram() }

// await begins to measure the newest version, if nginx asks for the upstream.
func (u *upstream) await(seen, now time.Time) {
	if seen.IsZero() || !u.isAsked(now) {
		return
	}
	if n := len(u.awaited); n == maxAwaited {
		u.awaited[n-1].version = u.version
		return
	}
	u.awaited = append(u.awaited, awaited{u.version, seen})
}

func (u *upstream) isAsked(now time.Time) bool {
	for _, a := range u.askers {
		if !a.old && a.alive(now) {
			return true
		}
	}
	return false
}

// countFetched counts the versions that all askers have certainly fetched.
func (s *Server) countFetched(u *upstream, now time.Time) {
	for len(u.awaited) > 0 {
		first := u.awaited[0]
		var since time.Time
		for _, a := range u.askers {
			if a.old || !a.alive(now) {
				continue
			}
			if a.fetched < first.version {
				return
			}
			if a.usedAt.After(since) {
				since = a.usedAt
			}
		}
		if since.IsZero() {
			return // nobody asks at the moment
		}
		s.delays.Add(since.Sub(first.seen))
		u.awaited = u.awaited[1:]
	}
	u.awaited = nil
}

// used returns when the asker had the servers of its last answer, given that it asks the next
// question now. Until then it may have asked for the addresses of the servers' names.
func (a *asker) used(now time.Time) time.Time {
	if at := now.Add(-askPause); at.After(a.sentAt) {
		return at
	}
	return a.sentAt
}
