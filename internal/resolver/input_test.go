package resolver

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
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
	s.Set(map[string][]Target{"grpc-a": targets(7001)}, time.Time{})
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

// flood keeps n connections to address open that have sent half a question. Each that is
// closed is opened again after a moment. It ends with the test.
func flood(t *testing.T, address string, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all, begun sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	begun.Add(n)
	for range n {
		begin := sync.OnceFunc(begun.Done)
		all.Go(func() {
			defer begin()
			for ctx.Err() == nil {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				_, err = conn.Write([]byte{0})
				begin()
				if err == nil {
					_, _ = conn.Read(make([]byte, 1)) // returns when the Server closes it
				}
				conn.Close()
				stop()
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	begun.Wait()
}

// TestNginxAsksBesideManyConnections has other processes hold more TCP connections than the
// Server has room for, while nginx must ask over TCP.
func TestNginxAsksBesideManyConnections(t *testing.T) {
	s, address := startServer(t)
	s.Set(map[string][]Target{"http-a": targets(1)}, time.Time{})
	startNginx(t, address, "http-a")
	fetched := func() bool { return len(s.Unfetched()) == 0 }
	require.Eventually(t, fetched, 20*time.Second, 5*time.Millisecond)

	flood(t, address, maxConnections+100)
	for n := range 3 {
		set := time.Now()
		s.Set(map[string][]Target{"http-a": many(1350+n, false)}, time.Time{})
		require.Eventually(t, fetched, 60*time.Second, 5*time.Millisecond)
		took := time.Since(set)
		t.Logf("change %d: certainly fetched after %s", n, took.Round(time.Millisecond))
		assert.Less(t, took, 4500*time.Millisecond, "nginx had to ask again, which takes it five seconds")
	}
	assert.True(t, ask(t, askFrom(t, address), srv("http-a")).Truncated, "questions over UDP are answered too")
}

// TestConnectionsMakeRoom has one connection more than there is room for, again and again.
func TestConnectionsMakeRoom(t *testing.T) {
	const limit = 4
	open := newConnections(limit)
	t.Cleanup(open.wait)
	var clients []net.Conn
	var enter []func(phase)
	for n := range 2 * limit {
		client, server := net.Pipe()
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
		entered := make(chan func(phase), 1)
		full := open.serve(server, func(conn net.Conn, enter func(phase)) {
			entered <- enter
			_, _ = conn.Read(make([]byte, 1)) // until it is closed
		})
		assert.Equal(t, n >= limit, full)
		enter = append(enter, <-entered)
		switch n {
		case 0:
			enter[0](asking)
		case 1, 2:
			enter[n](idle)
		case 3:
			enter[1](idle) // 3 has sent nothing yet
		case 4:
			requireClosed(t, clients[3])
			enter[4](asking)
		case 5:
			requireClosed(t, clients[2])
			enter[5](asking)
		case 6:
			requireClosed(t, clients[1])
			enter[6](asking)
		case 7:
			requireClosed(t, clients[0])
		}
	}
	enter[0](idle) // it is closed already
	assert.Equal(t, limit, open.n)
}

// requireClosed checks that the other side has closed the connection.
func requireClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// TestFewFilesAreFewConnections lowers the process's limit of open files for a moment.
func TestFewFilesAreFewConnections(t *testing.T) {
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur < 4*maxConnections {
		t.Skipf("the limit is %d files already", limit.Cur)
	}
	assert.Equal(t, maxConnections, connectionLimit())
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1000, Max: limit.Max}))
	few := connectionLimit()
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	assert.Equal(t, 250, few)
}

// TestAnUnfinishedQuestionEndsItsConnection: the Server doesn't wait as long for the rest of
// a question as for the next question.
func TestAnUnfinishedQuestionEndsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			sent     []byte
			patience time.Duration
			want     time.Duration
		}{
			{nil, questionWithin, questionWithin},
			{nil, connectionIdle, connectionIdle},
			{[]byte{0}, connectionIdle, questionWithin},
			{[]byte{0, 12, 1}, connectionIdle, questionWithin},
		} {
			client, server := net.Pipe()
			began := time.Now()
			go func() {
				if len(test.sent) > 0 {
					_, _ = client.Write(test.sent)
				}
			}()
			_, err := readQuestion(server, test.patience)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			assert.Equal(t, test.want, time.Since(began))
			client.Close()
			server.Close()
		}
	})
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
	s.Set(map[string][]Target{"grpc-a": targets(7001), "grpc-b": many(1000, false)}, time.Time{})
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
