package controller

import "time"

// settle decides when changes are applied. A change that comes after quiet is
// applied at once; others wait until nothing has changed for min, or the first
// of them is max old. Quiet is half of max without an apply, counted from the
// apply's start, so that changes max apart, or somewhat less, never wait.
type settle struct {
	min, max time.Duration

	first, last time.Time // of the changes that wait; zero: none
	applied     time.Time // when the last apply began
}

func (s *settle) change(now time.Time) {
	if s.first.IsZero() {
		s.first = now
	}
	s.last = now
}

// due is when the waiting changes are to be applied.
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

// start says that the waiting changes are being applied.
func (s *settle) start(now time.Time) {
	s.applied = now
	s.reset()
}

// reset says that no change waits any more.
func (s *settle) reset() { s.first, s.last = time.Time{}, time.Time{} }

// resume says that a change waits that may not have been announced: one back to the
// configuration that was served when the apply began.
func (s *settle) resume(now time.Time) {
	if s.first.IsZero() {
		s.change(now)
	}
}

// hurry lets the next change go at once.
func (s *settle) hurry() { s.applied = time.Time{} }

// A reload costs new workers, and keeps the old ones for as long as they have
// connections.
const (
	reloadPause  = time.Second // between the starts of two reloads, at least
	countedFresh = time.Second // how long a count of old workers is good for
)

// governor bounds how often nginx reloads, whatever the settling says. Two
// reloads begin at least a second apart. While n old workers are still there,
// the pause is at least n seconds, but never more than max: nginx with many long
// streams would otherwise collect old workers of a few megabytes with each change.
type governor struct {
	max time.Duration

	began, before time.Time // of the last reload, and of the one before; zero: none
	old           int       // workers, at the last count
	counted       time.Time
}

// reload says that one begins.
func (g *governor) reload(now time.Time) {
	g.began, g.before = now, g.began
	g.old, g.counted = 0, time.Time{}
}

// undo says that the last reload did not happen.
func (g *governor) undo() { g.began = g.before }

// count takes note of how many old workers there are.
func (g *governor) count(now time.Time, old int) { g.old, g.counted = old, now }

// earliest is when the next reload may begin, as far as is known.
func (g *governor) earliest() time.Time {
	if g.began.IsZero() {
		return time.Time{}
	}
	return g.began.Add(max(reloadPause, min(time.Duration(g.old)*time.Second, g.max)))
}

// unsure reports whether old workers are to be counted before the next reload.
// It is not asked within reloadPause, when most of them are about to go.
func (g *governor) unsure(now time.Time) bool {
	return now.Sub(g.began) < g.max && now.Sub(g.counted) >= countedFresh
}
