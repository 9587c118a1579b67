package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// receiveBuffer is the requested size; the kernel limits it to net.core.rmem_max.
	receiveBuffer = 4 << 20
	// maxQuestion is the longest message that is read; nginx's have at most some 300 bytes.
	maxQuestion = 4096
	// questionWithin is how long a TCP client may take to send a question, from its first
	// byte on. For the first question it counts from the connection on: nginx connects when
	// it has one.
	questionWithin = 2 * time.Second
	// connectionIdle is how long a TCP client may take until it begins its next question, or
	// to read an answer.
	connectionIdle = 10 * time.Second
	// failurePause is the pause after a failure to read or accept.
	failurePause = 100 * time.Millisecond
)

// Listen listens on address, over UDP and TCP. More than one address would not help: nginx
// would take turns between them, and would ask each of them for the same servers.
func (s *Server) Listen(address string) error {
	if err := s.bind(address); err != nil {
		s.close()
		return fmt.Errorf("listen for nginx's DNS questions: %w", err)
	}
	return nil
}

func (s *Server) bind(address string) error {
	resolved, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	if s.udp, err = net.ListenUDP("udp", resolved); err != nil {
		s.udp = nil
		return err
	}
	_ = s.udp.SetReadBuffer(receiveBuffer) // the default works too
	s.tcp, err = net.Listen("tcp", address)
	return err
}

func (s *Server) close() {
	if s.udp != nil {
		s.udp.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
}

// Run answers until ctx is done, then returns nil. Call it once, after Listen. At its end
// parked questions get no answer: nginx sends copies of them to the next Server.
func (s *Server) Run(ctx context.Context) error {
	defer s.turns.close()
	defer s.stop()
	defer context.AfterFunc(ctx, s.stop)()
	context.AfterFunc(s.ctx, s.close)
	var running errgroup.Group
	running.Go(func() error {
		defer s.stop()
		return s.serveUDP()
	})
	running.Go(func() error {
		defer s.stop()
		return s.serveTCP()
	})
	if err := running.Wait(); err != nil {
		return fmt.Errorf("answer nginx's DNS questions: %w", err)
	}
	return nil
}

func (s *Server) serveUDP() error {
	message := make([]byte, maxQuestion)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(message)
		if err != nil {
			if again, err := s.failed(err); !again {
				return err
			}
			continue
		}
		s.receive(message[:n], client{
			address: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()),
			send: func(answer []byte) error {
				_, err := s.udp.WriteToUDPAddrPort(answer, from)
				return err
			},
		})
	}
}

func (s *Server) serveTCP() error {
	open := newConnections(connectionLimit())
	defer open.wait()
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			if again, err := s.failed(err); !again {
				return err
			}
			continue
		}
		if open.serve(conn, s.serveConnection) && s.logging.due(tooMany) {
			s.logger.Warn("too many TCP connections ask for servers, those without a question are closed", "limit", open.limit)
		}
	}
}

// serveConnection answers the questions of a TCP connection one after the other. It calls
// enter when the connection enters a phase.
func (s *Server) serveConnection(conn net.Conn, enter func(phase)) {
	defer s.recovered()
	defer context.AfterFunc(s.ctx, func() { conn.Close() })()
	address, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	c := client{address: address, tcp: true, send: func(answer []byte) error {
		if err := conn.SetWriteDeadline(time.Now().Add(connectionIdle)); err != nil {
			return err
		}
		_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		return err
	}}
	for patience := questionWithin; ; patience = connectionIdle {
		message, err := readQuestion(conn, patience)
		if err != nil {
			s.logger.Debug("TCP connection ends", "from", address, "error", err)
			return
		}
		enter(asking)
		s.receive(message, c)
		enter(idle)
	}
}

// readQuestion reads a message over TCP, which has its length in front. The message must
// begin within patience.
func readQuestion(conn net.Conn, patience time.Duration) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:1]); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(questionWithin)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, length[1:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > maxQuestion {
		return nil, fmt.Errorf("the question has %d bytes, want at most %d", n, maxQuestion)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(conn, message)
	return message, err
}

// failed handles a failure to read or accept. It reports whether to try again, as when
// there are no descriptors left. At the end of Run the error is nil.
func (s *Server) failed(err error) (again bool, _ error) {
	switch {
	case s.ctx.Err() != nil:
		return false, nil
	case errors.Is(err, net.ErrClosed):
		return false, err
	}
	if s.logging.due(readFailure) {
		s.logger.Error("nginx's DNS questions can't be read", "error", err)
	}
	select {
	case <-s.ctx.Done():
		return false, nil
	case <-time.After(failurePause):
		return true, nil
	}
}

// recovered is deferred in every function that handles input.
func (s *Server) recovered() {
	if fault := recover(); fault != nil && s.logging.due(fatal) {
		s.logger.Error("a DNS question could not be handled, this is a bug in lbctl", "panic", fault, "stack", string(debug.Stack()))
	}
}

// logging limits lines that others can cause to one a minute of each kind. The zero value
// is ready.
type logging struct {
	mu   sync.Mutex
	last [kinds]time.Time
}

const (
	fatal = iota
	tooMany
	readFailure
	kinds
)

func (l *logging) due(kind int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.last[kind].IsZero() && now.Sub(l.last[kind]) < time.Minute {
		return false
	}
	l.last[kind] = now
	return true
}
