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

// due is when what waits is to be applied.
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

// start says that what waited is being applied.
func (s *settle) start(now time.Time) {
	s.applied = now
	s.reset()
}

// reset says that nothing waits any more.
func (s *settle) reset() { s.first, s.last = time.Time{}, time.Time{} }

// resume says that something waits, whether or not it was announced: a change
// back to what was served when the apply began.
func (s *settle) resume(now time.Time) {
	if s.first.IsZero() {
		s.change(now)
	}
}

// hurry lets the next change go at once.
func (s *settle) hurry() { s.applied = time.Time{} }
