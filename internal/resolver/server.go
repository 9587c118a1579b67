// Package resolver answers the questions of nginx's resolver: by DNS, which servers
// an upstream has.
package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// holdFor is how long a question waits for news. nginx repeats one that was
	// not answered within five seconds.
	holdFor = 4 * time.Second
	// targetTTL is for names whose address never changes.
	targetTTL = 24 * 60 * 60
	// askerTTL is how long after its last question, or the answer to it, somebody
	// is taken to be there still: nginx asks again after a second.
	askerTTL = 6 * time.Second
	// knownTTL is how long after its last question nginx is taken to have an
	// upstream still; a question that got lost it repeats after five seconds.
	knownTTL = 12 * time.Second
	// receiveBuffer is asked for; the kernel gives net.core.rmem_max at most.
	receiveBuffer = 4 << 20
)

// Server answers nginx's questions for the servers of its upstreams, by DNS:
// SRV records with names that say the address. nginx asks again a second after
// each answer, and the Server keeps a question that it has nothing new for
// until there is something new, or for four seconds: so changes reach nginx at
// once, at a fifth of the questions.
//
// What it has never been told about it refuses to answer (SERVFAIL), for which
// nginx keeps the servers it has.
type Server struct {
	servers []*dns.Server
	logger  *slog.Logger
	taken   chan struct{}
	// questions paces what answers have nginx ask next: the address of each server.
	questions pace
	answers   paces // of addresses, by who asks

	mu        sync.Mutex
	upstreams map[string]*upstream // by SRV name
	names     map[string]*upstream // by the upstream's own name
	epoch     int                  // goes up with Forget
	ending    bool                 // no question is kept any more

	releasing sync.WaitGroup // questions that were kept, and are being answered
}

// upstream is what the Server knows of one.
type upstream struct {
	query   string // SRV name
	targets []Target
	version int       // goes up with targets
	answer  []byte    // packed, but for the question's own id
	whole   bool      // answer has all targets
	since   time.Time // when they became its targets
	askers  map[string]asker
	kept    map[*kept]bool
	asked   time.Time // last
	known   bool      // nginx has taken an answer
}

// asker is who asks for an upstream: the socket of one of nginx's workers. nginx
// asks again a second after it has taken an answer, never before.
type asker struct {
	told  int // the version it was told last
	taken int // the newest version it has certainly taken
	at    time.Time
}

// DefaultListen is where a Server listens unless told otherwise.
const DefaultListen = "127.0.0.1:9153"

// New makes a Server that answers once it listens and Run runs.
func New(logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Server{
		logger:    logger,
		questions: newPace(questionsPerSecond, questionsAtOnce),
		taken:     make(chan struct{}, 1),
		upstreams: map[string]*upstream{},
		names:     map[string]*upstream{},
	}
}

// Listen binds address, UDP and TCP. More than one address would be of no use: nginx
// would take turns between them, and what it was told at one it would ask for again
// at the next.
func (r *Server) Listen(address string) error {
	if err := r.bind(address); err != nil {
		r.close()
		return fmt.Errorf("listen for nginx's DNS questions: %w", err)
	}
	return nil
}

func (r *Server) bind(address string) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	if conn, ok := packets.(*net.UDPConn); ok {
		_ = conn.SetReadBuffer(receiveBuffer) // what it gets is what there is
	}
	stream, err := net.Listen("tcp", address)
	if err != nil {
		packets.Close()
		return err
	}
	r.servers = append(r.servers,
		&dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(r.serve)},
		&dns.Server{Listener: stream, Handler: dns.HandlerFunc(r.serve)})
	return nil
}

func (r *Server) close() {
	for _, s := range r.servers {
		if s.PacketConn != nil {
			s.PacketConn.Close()
		}
		if s.Listener != nil {
			s.Listener.Close()
		}
	}
}

// Run answers until ctx is done; it returns nil then. It runs once.
func (r *Server) Run(ctx context.Context) error {
	failed := make(chan error, len(r.servers))
	var running sync.WaitGroup
	for _, s := range r.servers {
		running.Go(func() {
			if err := s.ActivateAndServe(); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("answer nginx's DNS questions: %w", err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	r.end()
	for _, s := range r.servers {
		_ = s.Shutdown() // it fails for one that has not started or has ended
	}
	r.close()
	running.Wait()
	return err
}

// Set says which servers each upstream has; names that are missing are answered
// for no more. Of the targets of an upstream no two may have the same address, and
// nobody may change them any more.
func (r *Server) Set(upstreams map[string][]Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for name, targets := range upstreams {
		u := r.names[name]
		if u != nil && SameTargets(u.targets, targets) {
			continue
		}
		if u == nil {
			u = &upstream{query: srvPrefix + Host(name) + ".", askers: map[string]asker{}, kept: map[*kept]bool{}}
			r.names[name], r.upstreams[u.query] = u, u
		}
		u.set(targets, now)
		r.release(u)
	}
	if len(r.names) == len(upstreams) {
		return // there are no others
	}
	for name, u := range r.names {
		if _, ok := upstreams[name]; !ok {
			r.release(u)
			delete(r.names, name)
			if r.upstreams[u.query] == u {
				delete(r.upstreams, u.query)
			}
		}
	}
}

func (u *upstream) set(targets []Target, now time.Time) {
	u.targets = targets
	u.version++
	u.since = now
	u.answer, u.whole = pack(u.query, u.targets)
}

// Forget says that nginx has new workers, as after a reload: whoever asks from now
// on has not been told anything, and only who asks from now on counts for what
// nginx has taken.
func (r *Server) Forget() { r.forget(false) }

// Restarted says that nginx is a new one, which has no servers yet.
func (r *Server) Restarted() { r.forget(true) }

func (r *Server) forget(restarted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	for _, u := range r.upstreams {
		clear(u.askers)
		u.known = u.known && !restarted
		r.release(u) // a question kept from before would tell nothing of who asked it
	}
}

// Untaken is the upstreams whose newest servers nginx has not certainly taken, and
// since when they have them. nginx has taken an answer for certain when it asks
// the next time.
func (r *Server) Untaken() map[string]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	untaken := map[string]time.Time{}
	now := time.Now()
	for name, u := range r.names {
		if !u.isTaken(u.version, now) {
			untaken[name] = u.since
		}
	}
	return untaken
}

// Known reports whether nginx has servers of the upstream. It has, once it has
// taken an answer, for as long as it goes on asking, over reloads too.
func (r *Server) Known(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.names[name]
	return u != nil && u.known && time.Since(u.asked) <= knownTTL
}

// Taken fires when nginx has taken the newest servers of an upstream.
func (r *Server) Taken() <-chan struct{} { return r.taken }

// isTaken reports whether everybody who asks has taken version, or a later one,
// and somebody does ask. Shortly after a reload, old workers may still do so too.
func (u *upstream) isTaken(version int, now time.Time) bool {
	somebody := false
	for _, a := range u.askers {
		if now.Sub(a.at) > askerTTL {
			continue
		}
		if a.taken < version {
			return false
		}
		somebody = true
	}
	return somebody
}

func (r *Server) serve(w dns.ResponseWriter, question *dns.Msg) {
	if len(question.Question) != 1 {
		r.fail(w, question, dns.RcodeFormatError)
		return
	}
	q := question.Question[0]
	name := strings.ToLower(q.Name)
	if addr, ok := targetAddr(name); ok {
		r.serveTarget(w, question, addr)
		return
	}
	if q.Qtype != dns.TypeSRV {
		r.fail(w, question, dns.RcodeServerFailure)
		return
	}
	r.serveUpstream(w, question, name)
}

// serveUpstream answers for an upstream: at once when the asker has not been told
// the newest yet, else when there is something new.
func (r *Server) serveUpstream(w dns.ResponseWriter, question *dns.Msg, name string) {
	epoch := 0
	if !overTCP(w) { // else it is the answer that was too long for UDP that is asked for again
		var wait bool
		if epoch, wait = r.arrived(w, question, name); wait {
			return
		}
	}
	r.answer(w, question, name, epoch)
}

func overTCP(w dns.ResponseWriter) bool {
	_, ok := w.RemoteAddr().(*net.TCPAddr)
	return ok
}

// answer tells the upstream's servers to who asked in that epoch.
func (r *Server) answer(w dns.ResponseWriter, question *dns.Msg, name string, epoch int) {
	r.questions.wait(1 + r.targets(name))
	r.mu.Lock()
	u := r.upstreams[name]
	if u == nil {
		r.mu.Unlock()
		r.fail(w, question, dns.RcodeServerFailure)
		return
	}
	answer, targets := slices.Clone(u.answer), u.targets
	whole := u.whole || !overTCP(w)
	if !overTCP(w) && epoch == r.epoch {
		from := w.RemoteAddr().String()
		u.askers[from] = asker{told: u.version, taken: u.askers[from].taken, at: time.Now()}
	}
	r.mu.Unlock()
	if !whole {
		answer = packAll(name, targets)
	}
	answer[0], answer[1] = byte(question.Id>>8), byte(question.Id)
	if _, err := w.Write(answer); err != nil {
		r.logger.Debug("DNS answer not sent", "name", name, "error", err)
	}
}

// arrived takes note of a question over UDP, and keeps it when there is nothing
// new: then it is answered later.
func (r *Server) arrived(w dns.ResponseWriter, question *dns.Msg, name string) (epoch int, wait bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.upstreams[name]
	if u == nil {
		return r.epoch, false
	}
	now := time.Now()
	u.asked = now
	maps.DeleteFunc(u.askers, func(_ string, a asker) bool { return now.Sub(a.at) > askerTTL })
	from := w.RemoteAddr().String()
	a, known := u.askers[from]
	if !known {
		return r.epoch, false
	}
	a.at = now
	u.known = true
	if a.taken < a.told {
		a.taken = a.told
		if a.taken == u.version {
			select {
			case r.taken <- struct{}{}:
			default: // it fires already
			}
		}
	}
	u.askers[from] = a
	if a.told < u.version || r.ending {
		return r.epoch, false
	}
	r.keep(u, w, question, name)
	return r.epoch, true
}

// targets is how many servers the upstream has.
func (r *Server) targets(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.upstreams[name]; u != nil {
		return len(u.targets)
	}
	return 0
}

func (r *Server) serveTarget(w dns.ResponseWriter, question *dns.Msg, addr netip.Addr) {
	r.answers.of(w.RemoteAddr().String()).wait(1)
	q := question.Question[0]
	m := new(dns.Msg).SetReply(question)
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: targetTTL}
	switch {
	case q.Qtype == dns.TypeA && addr.Is4():
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: addr.AsSlice()}}
	case q.Qtype == dns.TypeAAAA && addr.Is6():
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: addr.AsSlice()}}
	}
	r.write(w, m)
}

func (r *Server) fail(w dns.ResponseWriter, question *dns.Msg, code int) {
	r.write(w, new(dns.Msg).SetRcode(question, code))
}

func (r *Server) write(w dns.ResponseWriter, m *dns.Msg) {
	m.Authoritative = true
	if err := w.WriteMsg(m); err != nil {
		r.logger.Debug("DNS answer not sent", "name", m.Question[0].Name, "error", err)
	}
}
