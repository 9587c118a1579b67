package resolver

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// noQuestion claims to have a question, and has none.
var noQuestion = []byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}

func overTCP(message []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

// TestNoConnectionEndsTheServer sends messages without a question, and resets the
// connection before they can be answered.
func TestNoConnectionEndsTheServer(t *testing.T) {
	s, address := startServer(t)
	s.Set(map[string][]Target{"grpc-a": targets(7001)})
	for range 20 {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		for range 50 {
			if _, err := conn.Write(overTCP(noQuestion)); err != nil {
				break
			}
		}
		require.NoError(t, conn.(*net.TCPConn).SetLinger(0))
		conn.Close()
	}
	answer, _, err := (&dns.Client{Net: "tcp", Timeout: 10 * time.Second}).Exchange(srv("grpc-a"), address)
	require.NoError(t, err)
	assert.Len(t, answer.Answer, 1)
}

// TestConnectionsAreBounded opens the maximum number of connections. One more is closed at
// once, and questions over UDP are still answered.
func TestConnectionsAreBounded(t *testing.T) {
	s, address := startServer(t)
	s.Set(map[string][]Target{"grpc-a": targets(7001)})
	for range maxConnections {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
	}
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return true
		}
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return false
		}
		_, err = conn.Read(make([]byte, 1))
		var timeout net.Error
		return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
	}, 30*time.Second, time.Millisecond)
	assert.Len(t, ask(t, askFrom(t, address), srv("grpc-a")).Answer, 1)
}

// TestAPanicIsOnlyLogged has an answer that panics.
func TestAPanicIsOnlyLogged(t *testing.T) {
	s := New(nil)
	done := make(chan struct{})
	assert.True(t, s.inTurn(client{}, 0, func() {
		defer close(done)
		panic("a bug")
	}))
	<-done
	s.turns.close()
	assert.False(t, s.logging.due(fatal), "the panic was logged")
}

// FuzzServe gives the Server messages as they come from the network.
func FuzzServe(f *testing.F) {
	f.Add(noQuestion)
	f.Add([]byte{})
	for _, m := range []*dns.Msg{
		srv("grpc-a"), srv("grpc-b"),
		new(dns.Msg).SetQuestion("example.com.", dns.TypeSRV),
		new(dns.Msg).SetQuestion(targetLabel(netip.MustParseAddrPort("10.0.0.1:7000"))+targetZone+".", dns.TypeA),
		new(dns.Msg).SetQuestion(targetLabel(netip.MustParseAddrPort("[fd00::1]:7000"))+targetZone+".", dns.TypeAAAA),
		new(dns.Msg).SetUpdate("lbctl.internal."),
	} {
		b, err := m.Pack()
		require.NoError(f, err)
		f.Add(b)
	}
	s := New(nil)
	s.Set(map[string][]Target{"grpc-a": targets(7001), "grpc-b": many(1000, false)})
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, tcp := range []bool{false, true} {
			answered := make(chan []byte, 1)
			s.receive(message, client{tcp: tcp, send: func(answer []byte) error {
				answered <- answer
				return nil
			}})
			if !tcp {
				continue // it may be parked
			}
			select {
			case answer := <-answered:
				var m dns.Msg
				require.NoError(t, m.Unpack(answer))
				assert.True(t, m.Response)
				assert.LessOrEqual(t, len(answer), MaxSize)
			default:
			}
		}
		assert.True(t, s.logging.due(fatal), "nothing panics")
		s.logging = logging{}
	})
}
