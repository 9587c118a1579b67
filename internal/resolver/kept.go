package resolver

import (
	"time"

	"github.com/miekg/dns"
)

// kept is a question that waits for news. Nothing runs for it meanwhile: with a
// thousand upstreams there are a thousand of them all the time.
type kept struct {
	w        dns.ResponseWriter
	question *dns.Msg
	name     string
	epoch    int
	timer    *time.Timer
}

// keep has the question answered when the upstream is released, or after holdFor.
func (r *Server) keep(u *upstream, w dns.ResponseWriter, question *dns.Msg, name string) {
	k := &kept{w: w, question: question, name: name, epoch: r.epoch}
	u.kept[k] = true
	k.timer = time.AfterFunc(holdFor, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if u.kept[k] {
			r.let(u, k)
		}
	})
}

// let has a kept question answered.
func (r *Server) let(u *upstream, k *kept) {
	k.timer.Stop()
	delete(u.kept, k)
	r.releasing.Go(func() { r.answer(k.w, k.question, k.name, k.epoch) })
}

// release has the questions answered that are kept for the upstream.
func (r *Server) release(u *upstream) {
	for k := range u.kept {
		r.let(u, k)
	}
}

// end answers what is kept, for nobody would later, and keeps nothing more.
func (r *Server) end() {
	r.mu.Lock()
	r.ending = true
	for _, u := range r.upstreams {
		r.release(u)
	}
	r.mu.Unlock()
	r.releasing.Wait()
}
