package registration

import "sync/atomic"

// hurries count the calls of [Registrar.Hurry].
type hurries struct {
	count         atomic.Int32
	first, second chan struct{} // closed with the first and the second call
}

func newHurries() *hurries {
	return &hurries{first: make(chan struct{}), second: make(chan struct{})}
}

// afterDrain is closed with the first call if that is still to come, and never if
// it has cut the drain short.
func (h *hurries) afterDrain() <-chan struct{} {
	select {
	case <-h.first:
		return nil
	default:
		return h.first
	}
}

// Hurry cuts short what is being waited for on the way out: the first call the
// drain, the second one the time that a command started by [Registrar.Exec] has
// for ending after SIGTERM. A first call that comes after the drain does nothing.
func (r *Registrar) Hurry() {
	switch r.hurries.count.Add(1) {
	case 1:
		close(r.hurries.first)
	case 2:
		close(r.hurries.second)
	}
}
