package controller

import "time"

// settle decides when changes are applied. A change after a quiet time is applied at once.
// Other changes wait until nothing has changed for min, or until the first of them is max
// old. A quiet time is half of max without an apply. It counts from the start of the last
// apply, so changes that are max apart, or somewhat less, never wait.
type settle struct {
	min, max time.Duration

	first, last time.Time // when the first and last waiting changes came; zero: none wait
	applied     time.Time // when the last apply began
}

func (s *settle) change(now time.Time) {
	if s.first.IsZero() {
		s.first = now
	}
	s.last = now
}

// due returns when the waiting changes must be applied.
func (s *settle) due() time.Time {
	if s.applied.IsZero() || s.first.Sub(s.applied) >= s.max/2 {
		return s.first
	}
	at := s.last.Add(s.min)
	if latest := s.first.Add(s.max); latest.Before(at) {
		return latest
	}
	return at
}

// start notes that the waiting changes are being applied.
func (s *settle) start(now time.Time) {
	s.applied = now
	s.reset()
}

// reset notes that no change waits.
func (s *settle) reset() { s.first, s.last = time.Time{}, time.Time{} }

// resume notes a waiting change for which change may not have been called: one back to
// the configuration that was served when the apply began.
func (s *settle) resume(now time.Time) {
	if s.first.IsZero() {
		s.change(now)
	}
}

// hurry makes the next change due at once.
func (s *settle) hurry() { s.applied = time.Time{} }

// A reload starts new workers, and the old ones stay as long as they have connections.
const (
	reloadPause  = time.Second // minimum time between the starts of two reloads
	countedFresh = time.Second // how long a count of old workers is valid
)

// governor limits how often nginx reloads, in addition to settle. Two reloads begin at
// least a second apart. While n old workers are still there, the pause is at least n
// seconds, but at most max. Otherwise an nginx with many long streams would collect more
// old workers, of a few megabytes each, with every change.
type governor struct {
	max time.Duration

	began, before time.Time // when the last reload and the one before it began; zero: none
	old           int       // number of old workers at the last count
	counted       time.Time // when they were counted
}

// reload notes that a reload begins.
func (g *governor) reload(now time.Time) {
	g.began, g.before = now, g.began
	g.old, g.counted = 0, time.Time{}
}

// undo notes that the last reload did not happen.
func (g *governor) undo() { g.began = g.before }

// count stores how many old workers there are.
func (g *governor) count(now time.Time, old int) { g.old, g.counted = old, now }

// earliest returns when the next reload may begin, judging by the last count.
func (g *governor) earliest() time.Time {
	if g.began.IsZero() {
		return time.Time{}
	}
	return g.began.Add(max(reloadPause, min(time.Duration(g.old)*time.Second, g.max)))
}

// mustCount reports whether old workers must be counted before the next reload. The loop
// doesn't call it within reloadPause, when most of them are about to end.
func (g *governor) mustCount(now time.Time) bool {
	return now.Sub(g.began) < g.max && now.Sub(g.counted) >= countedFresh
}
