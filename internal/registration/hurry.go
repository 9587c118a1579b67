package registration

import "sync/atomic"

// hurries counts the calls of [Registrar.Hurry].
type hurries struct {
	count         atomic.Int32
	first, second chan struct{} // closed with the first and the second call
}

func newHurries() *hurries {
	return &hurries{first: make(chan struct{}), second: make(chan struct{})}
}

// afterDrain returns a channel that is closed with the first call, or never if there has
// been one already, since that one has cut the drain short.
func (h *hurries) afterDrain() <-chan struct{} {
	select {
	case <-h.first:
		return nil
	default:
		return h.first
	}
}

// Hurry cuts short the waits of a registrar that is leaving. The first call ends the drain;
// after the drain it does nothing. The second call ends the time that a command of
// [Registrar.Exec] has to end after SIGTERM.
func (r *Registrar) Hurry() {
	switch r.hurries.count.Add(1) {
	case 1:
		close(r.hurries.first)
	case 2:
		close(r.hurries.second)
	}
}
