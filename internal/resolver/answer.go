package resolver

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// client is a socket that asks.
type client struct {
	address netip.AddrPort
	tcp     bool
	send    func(answer []byte) error
}

// receive handles a message. For a client over UDP it returns at once. It drops a message
// that is no question.
func (s *Server) receive(message []byte, c client) {
	defer s.recovered()
	var m dns.Msg
	if err := m.Unpack(message); err != nil || m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		s.logger.Debug("a message is no DNS question", "from", c.address)
		return
	}
	q := m.Question[0]
	name := strings.ToLower(q.Name)
	if addr, ok := targetAddr(name); ok {
		s.inTurn(c, 0, func() { s.reply(c, targetAnswer(&m, addr)) })
		return
	}
	switch {
	case q.Qtype != dns.TypeSRV || !strings.HasSuffix(name, hostZone+"."):
		s.inTurn(c, 0, func() { s.reply(c, new(dns.Msg).SetRcode(&m, dns.RcodeRefused)) })
	case c.tcp: // the answer over UDP was too long
		s.answerWhole(c, m.Id, name)
	default:
		s.asked(c, m.Id, name)
	}
}

// asked handles a question for an upstream: it answers at once if the servers are new for
// the asker, and otherwise parks the question.
func (s *Server) asked(c client, id uint16, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	u := s.upstreams[name]
	if u == nil {
		if u = s.addUnknown(name, now); u == nil {
			return
		}
	}
	a := u.asker(c, now)
	before := a.fetched
	answer := a.ask(id, u.version, now)
	if a.fetched != before && a.fetched == u.version {
		select {
		case s.fetched <- struct{}{}:
		default: // it has fired already
		}
	}
	s.countFetched(u, now)
	if answer && u.version > 0 {
		s.answer(u, a)
	}
}

// addUnknown adds an unknown upstream, which a later Set may make known. It returns nil if
// there are too many.
func (s *Server) addUnknown(name string, now time.Time) *upstream {
	if len(s.upstreams)-len(s.names) >= maxUnknown {
		maps.DeleteFunc(s.upstreams, func(_ string, u *upstream) bool {
			u.forget(now, aliveFor)
			return u.version == 0 && len(u.askers) == 0
		})
		if len(s.upstreams)-len(s.names) >= maxUnknown {
			return nil
		}
	}
	u := newUpstream(name)
	s.upstreams[name] = u
	return u
}

// answerParked answers an upstream's parked questions.
func (s *Server) answerParked(u *upstream, now time.Time) {
	for _, a := range u.askers {
		if a.parked() && a.alive(now) {
			s.answer(u, a)
		}
	}
}

// answer answers a question when its turn comes, with the servers that are newest then. The
// caller holds s.mu.
func (s *Server) answer(u *upstream, a *asker) {
	a.answering = s.inTurn(a.client, 1+len(u.targets), func() {
		if answer := s.answerTo(u, a); answer != nil {
			s.send(a.client, answer)
		}
	})
}

// answerTo returns the answer to a question; nil if the upstream has become unknown.
func (s *Server) answerTo(u *upstream, a *asker) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.answering = false
	if s.upstreams[u.query] != u {
		return nil
	}
	a.sent, a.sentAt = u.version, time.Now()
	return withID(slices.Clone(u.answer), a.id)
}

// answerWhole answers over TCP, with all servers.
func (s *Server) answerWhole(c client, id uint16, name string) {
	s.mu.Lock()
	u := s.upstreams[name]
	var targets []Target
	known := u != nil && u.version > 0
	if known {
		targets = u.targets
	}
	s.mu.Unlock()
	if known {
		s.inTurn(c, 1+len(targets), func() { s.send(c, withID(packAll(name, targets), id)) })
	}
}

func withID(answer []byte, id uint16) []byte {
	binary.BigEndian.PutUint16(answer, id)
	return answer
}

// targetTTL is the TTL, in seconds, of target names, whose address never changes.
const targetTTL = 24 * 60 * 60

// targetAnswer returns the answer with the address of a target.
func targetAnswer(question *dns.Msg, addr netip.Addr) *dns.Msg {
	q := question.Question[0]
	m := new(dns.Msg).SetReply(question)
	m.Authoritative = true
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: targetTTL}
	switch {
	case q.Qtype == dns.TypeA && addr.Is4():
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: addr.AsSlice()}}
	case q.Qtype == dns.TypeAAAA && addr.Is6():
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: addr.AsSlice()}}
	}
	return m
}

func (s *Server) reply(c client, m *dns.Msg) {
	answer, err := m.Pack()
	if err != nil {
		s.logger.Debug("DNS answer can't be packed", "to", c.address, "error", err)
		return
	}
	s.send(c, answer)
}

func (s *Server) send(c client, answer []byte) {
	if err := c.send(answer); err != nil {
		s.logger.Debug("DNS answer not sent", "to", c.address, "error", err)
	}
}
