package endpoints

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
	"golang.org/x/time/rate"
)

const (
	// holdFor is how long a question waits for news. nginx repeats one that was
	// not answered within five seconds.
	holdFor = 4 * time.Second
	// targetTTL is for names whose address never changes.
	targetTTL = 24 * 60 * 60
	// udpSize is the longest answer over UDP that nginx takes.
	udpSize = 4096
	// askerTTL is how long somebody who asked is remembered.
	askerTTL = 15 * time.Second
	// answersPerSecond and answersAtOnce keep a thousand names that are asked
	// for at once, as they are when nginx starts, from overrunning the receive
	// buffers of nginx's sockets: what is lost, nginx asks for again after five
	// seconds only.
	answersPerSecond = 25000
	answersAtOnce    = 128
	// receiveBuffer is asked for; the kernel gives net.core.rmem_max at most.
	receiveBuffer = 4 << 20
)

// Target is one server of an upstream, as nginx is told of it.
type Target struct {
	Addr   netip.AddrPort
	Weight uint16 // 1 to 65535
}

// sentinel is the only server of an upstream that has none: nginx would forget
// an upstream whose answer is empty. Nobody can listen on port 0, so connecting
// is refused, and the templates make a proper 503 or UNAVAILABLE of it.
var sentinel = Target{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0), Weight: 1}

// Sentinel is the address, as in nginx's $upstream_addr, of the server that
// stands for "no server at all".
const Sentinel = "127.0.0.1:0"

// Responder answers nginx's questions for the servers of its upstreams, by DNS:
// SRV records with names that say the address. nginx asks again a second after
// each answer, and the Responder keeps a question that it has nothing new for
// until there is something new, or for four seconds: so changes reach nginx at
// once, at a fifth of the questions.
//
// What it has never been told about it refuses to answer (SERVFAIL), for which
// nginx keeps the servers it has.
type Responder struct {
	servers []*dns.Server
	logger  *slog.Logger
	pace    *rate.Limiter
	ending  chan struct{}

	mu        sync.Mutex
	upstreams map[string]*upstream // by SRV name
	names     map[string]string    // upstream's own name to SRV name
}

// upstream is what the Responder knows of one.
type upstream struct {
	targets []Target
	version int           // goes up with targets
	changed chan struct{} // closed when targets change
	answer  []byte        // packed, but for the question's own id
	whole   bool          // answer has all targets

	askers map[string]asker
	told   int // the version of the last answer
	taken  int // the newest version that nginx has certainly taken
	since  time.Time
}

// asker is who has asked for an upstream: one of the sockets of one of nginx's
// workers.
type asker struct {
	version int // that it was told last
	at      time.Time
}

// NewResponder binds address, UDP and TCP, and, when it is on loopback, the three
// addresses after it too: nginx takes turns between them, and each has a buffer of
// its own. It answers once Run runs.
func NewResponder(address string, logger *slog.Logger) (*Responder, error) {
	addresses, err := ResponderAddresses(address)
	if err != nil {
		return nil, err
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	r := &Responder{
		logger:    logger,
		pace:      rate.NewLimiter(answersPerSecond, answersAtOnce),
		ending:    make(chan struct{}),
		upstreams: map[string]*upstream{},
		names:     map[string]string{},
	}
	for _, a := range addresses {
		if err := r.bind(a); err != nil {
			r.close()
			return nil, fmt.Errorf("listen for nginx's DNS questions: %w", err)
		}
	}
	return r, nil
}

// ResponderAddresses are those that NewResponder binds.
func ResponderAddresses(address string) ([]string, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || a.Port() == 0 {
		return nil, fmt.Errorf("DNS address %q, want ADDRESS:PORT like \"127.0.0.1:9153\"", address)
	}
	addresses := []string{a.String()}
	if !a.Addr().Is4() || !a.Addr().IsLoopback() {
		return addresses, nil
	}
	for next := a.Addr().Next(); len(addresses) < 4 && next.IsLoopback(); next = next.Next() {
		addresses = append(addresses, netip.AddrPortFrom(next, a.Port()).String())
	}
	return addresses, nil
}

func (r *Responder) bind(address string) error {
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

func (r *Responder) close() {
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
func (r *Responder) Run(ctx context.Context) error {
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
	close(r.ending) // what is held is answered now: nobody would later
	for _, s := range r.servers {
		_ = s.Shutdown() // it fails for one that has not started or has ended
	}
	r.close()
	running.Wait()
	return err
}

// Set says which servers each upstream has; names that are missing are answered
// for no more. Of the targets of an upstream no two may have the same address.
func (r *Responder) Set(upstreams map[string][]Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for name := range r.names {
		if _, ok := upstreams[name]; ok {
			continue
		}
		query := r.names[name]
		close(r.upstreams[query].changed)
		delete(r.upstreams, query)
		delete(r.names, name)
	}
	for name, targets := range upstreams {
		query, ok := r.names[name]
		if !ok {
			query = srvPrefix + ResolveHost(name) + "."
			r.names[name] = query
			r.upstreams[query] = &upstream{changed: make(chan struct{}), askers: map[string]asker{}}
		}
		if u := r.upstreams[query]; !ok || !slices.Equal(u.targets, targets) {
			u.set(query, targets, now)
		}
	}
}

func (u *upstream) set(query string, targets []Target, now time.Time) {
	u.targets = slices.Clone(targets)
	u.version++
	u.since = now
	u.answer, u.whole = pack(query, u.targets)
	close(u.changed)
	u.changed = make(chan struct{})
}

// Untaken is the upstreams whose newest servers nginx has not certainly taken, and
// since when they have them. nginx has taken an answer for certain when it asks
// the next time.
func (r *Responder) Untaken() map[string]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	untaken := map[string]time.Time{}
	for name, query := range r.names {
		if u := r.upstreams[query]; u.taken != u.version {
			untaken[name] = u.since
		}
	}
	return untaken
}

func (r *Responder) serve(w dns.ResponseWriter, question *dns.Msg) {
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
func (r *Responder) serveUpstream(w dns.ResponseWriter, question *dns.Msg, name string) {
	_, overTCP := w.RemoteAddr().(*net.TCPAddr)
	changed := r.arrived(name, w.RemoteAddr().String(), overTCP)
	if changed != nil {
		timer := time.NewTimer(holdFor)
		select {
		case <-changed:
		case <-timer.C:
		case <-r.ending:
		}
		timer.Stop()
	}
	_ = r.pace.Wait(context.Background()) // it can't fail: one is less than answersAtOnce
	r.mu.Lock()
	u := r.upstreams[name]
	if u == nil {
		r.mu.Unlock()
		r.fail(w, question, dns.RcodeServerFailure)
		return
	}
	answer, whole, targets := slices.Clone(u.answer), u.whole, u.targets
	if whole || overTCP {
		u.told = u.version
		u.askers[w.RemoteAddr().String()] = asker{u.version, time.Now()}
	}
	r.mu.Unlock()
	if overTCP && !whole {
		answer = packAll(name, targets)
	}
	answer[0], answer[1] = byte(question.Id>>8), byte(question.Id)
	if _, err := w.Write(answer); err != nil {
		r.logger.Debug("DNS answer not sent", "name", name, "error", err)
	}
}

// arrived takes note of a question, and returns what to wait for before it is
// answered: nil when there is nothing to wait for.
func (r *Responder) arrived(name, from string, overTCP bool) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.upstreams[name]
	if u == nil {
		return nil
	}
	now := time.Now()
	// Over TCP it is the answer that was too long for UDP that is asked for again.
	if !overTCP && u.told > u.taken {
		u.taken = u.told
	}
	before, known := u.askers[from]
	maps.DeleteFunc(u.askers, func(_ string, a asker) bool { return now.Sub(a.at) > askerTTL })
	if overTCP || !known || now.Sub(before.at) > askerTTL || before.version != u.version {
		return nil
	}
	u.askers[from] = asker{before.version, now}
	return u.changed
}

func (r *Responder) serveTarget(w dns.ResponseWriter, question *dns.Msg, addr netip.Addr) {
	_ = r.pace.Wait(context.Background()) // it can't fail: one is less than answersAtOnce
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

func (r *Responder) fail(w dns.ResponseWriter, question *dns.Msg, code int) {
	r.write(w, new(dns.Msg).SetRcode(question, code))
}

func (r *Responder) write(w dns.ResponseWriter, m *dns.Msg) {
	m.Authoritative = true
	if err := w.WriteMsg(m); err != nil {
		r.logger.Debug("DNS answer not sent", "name", m.Question[0].Name, "error", err)
	}
}

// pack makes the answer over UDP; one that is too long says so (RFC 1035,
// section 4.2.1), has no servers, and whole is false.
func pack(query string, targets []Target) (answer []byte, whole bool) {
	answer = packAll(query, targets)
	if len(answer) <= udpSize {
		return answer, true
	}
	m := reply(query)
	m.Truncated = true
	return mustPack(m), false
}

func packAll(query string, targets []Target) []byte {
	if len(targets) == 0 {
		targets = []Target{sentinel}
	}
	m := reply(query)
	for _, t := range targets {
		m.Answer = append(m.Answer, &dns.SRV{
			// No TTL: nginx asks again as soon as it does, after a second.
			Hdr:    dns.RR_Header{Name: query, Rrtype: dns.TypeSRV, Class: dns.ClassINET},
			Weight: t.Weight,
			Port:   t.Addr.Port(),
			Target: targetName(t.Addr),
		})
	}
	return mustPack(m)
}

func reply(query string) *dns.Msg {
	m := new(dns.Msg).SetQuestion(query, dns.TypeSRV)
	m.Response, m.Authoritative, m.Compress = true, true, true
	return m
}

// mustPack can fail only for names that can't be, and none of ours is.
func mustPack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("pack a DNS answer for %q: %v", m.Question[0].Name, err))
	}
	return b
}
