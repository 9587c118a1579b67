package resolver

import (
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A worker is one of nginx's sockets, without a network.
type worker struct {
	dns.ResponseWriter
	r       *Server
	address net.Addr

	mu  sync.Mutex
	got []*dns.Msg
}

func newWorker(r *Server, port int) *worker {
	return &worker{r: r, address: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
}

func (w *worker) RemoteAddr() net.Addr { return w.address }

func (w *worker) Write(b []byte) (int, error) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return 0, err
	}
	return len(b), w.WriteMsg(m)
}

func (w *worker) WriteMsg(m *dns.Msg) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, m)
	return nil
}

func (w *worker) answers() []*dns.Msg {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

// ask puts a question, which is answered now or later.
func (w *worker) ask(upstream string) {
	go w.r.serve(w, srv(upstream))
	synctest.Wait()
}

func untaken(r *Server) []string { return slices.Sorted(maps.Keys(r.Untaken())) }

func inBubble(t *testing.T, test func(t *testing.T, r *Server)) {
	synctest.Test(t, func(t *testing.T) {
		r := New(nil)
		defer r.end()
		test(t, r)
	})
}

func TestTakenIsWhatEverybodyWhoAsksHasTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)})
		set := time.Now()
		assert.Equal(t, map[string]time.Time{"grpc-a": set}, r.Untaken(), "nobody has asked")
		quick, slow := newWorker(r, 1), newWorker(r, 2)
		quick.ask("grpc-a")
		slow.ask("grpc-a")
		require.Len(t, quick.answers(), 1)
		require.Len(t, slow.answers(), 1)
		assert.Equal(t, []string{"grpc-a"}, untaken(r), "an answer that was sent may have got lost")
		quick.ask("grpc-a")
		assert.Len(t, quick.answers(), 1, "there is nothing new")
		assert.Equal(t, []string{"grpc-a"}, untaken(r), "the other has not asked again")
		slow.ask("grpc-a")
		assert.Empty(t, untaken(r))
		select {
		case <-r.Taken():
		default:
			t.Error("nobody was notified")
		}

		time.Sleep(2 * time.Second)
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)})
		synctest.Wait()
		require.Len(t, quick.answers(), 2, "what is held is answered when there is news")
		assert.Len(t, quick.answers()[1].Answer, 2)
		quick.ask("grpc-a")
		assert.Equal(t, []string{"grpc-a"}, untaken(r), "the other has it in its socket still")
		time.Sleep(askerTTL + time.Millisecond)
		assert.Empty(t, untaken(r), "the other has gone, as after a reload")
		time.Sleep(askerTTL)
		assert.Equal(t, []string{"grpc-a"}, untaken(r), "nobody is there any more")
	})
}

func TestAQuestionIsKeptForFourSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.ask("grpc-a")
		time.Sleep(holdFor - time.Millisecond)
		synctest.Wait()
		assert.Len(t, w.answers(), 1)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Len(t, w.answers(), 2)
		assert.Equal(t, w.answers()[0].Answer, w.answers()[1].Answer)
	})
}

func TestAnUpstreamThatGoesIsAnsweredForNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.ask("grpc-a")
		r.Set(map[string][]Target{})
		synctest.Wait()
		require.Len(t, w.answers(), 2)
		assert.Equal(t, dns.RcodeServerFailure, w.answers()[1].Rcode)
		assert.Empty(t, untaken(r))
		assert.False(t, r.Known("grpc-a"))
	})
}

func TestAfterAReloadOnlyNewWorkersCount(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)})
		old, fresh := newWorker(r, 1), newWorker(r, 2)
		old.ask("grpc-a")
		old.ask("grpc-a")
		require.Empty(t, untaken(r))
		require.True(t, r.Known("grpc-a"))

		r.Forget()
		assert.Equal(t, []string{"grpc-a"}, untaken(r))
		assert.True(t, r.Known("grpc-a"), "nginx keeps its servers over a reload")
		time.Sleep(holdFor) // the question of the old worker is answered
		synctest.Wait()
		require.Len(t, old.answers(), 2)
		assert.Equal(t, []string{"grpc-a"}, untaken(r), "that answer was for one that is going")
		fresh.ask("grpc-a")
		require.Len(t, fresh.answers(), 1, "whoever is new is answered at once")
		assert.Equal(t, []string{"grpc-a"}, untaken(r))
		fresh.ask("grpc-a")
		assert.Empty(t, untaken(r))
	})
}

func TestWhatNginxKnows(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1), "grpc-b": targets(2)})
		w := newWorker(r, 1)
		assert.False(t, r.Known("grpc-a"), "it has not asked")
		w.ask("grpc-a")
		assert.False(t, r.Known("grpc-a"), "the answer may have got lost")
		w.ask("grpc-a")
		assert.True(t, r.Known("grpc-a"))
		assert.False(t, r.Known("grpc-b"))
		assert.False(t, r.Known("grpc-c"), "there is no such upstream")

		r.Restarted()
		assert.False(t, r.Known("grpc-a"), "another nginx has no servers")
		again := newWorker(r, 2)
		again.ask("grpc-a")
		again.ask("grpc-a")
		assert.True(t, r.Known("grpc-a"))
		time.Sleep(knownTTL + time.Millisecond)
		assert.False(t, r.Known("grpc-a"), "it has not asked for long")
	})
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		took := func() time.Duration { return time.Since(began) }
		var by paces
		first := by.of("127.0.0.1:1")
		for range answersAtOnce {
			first.wait(1)
		}
		assert.Zero(t, took(), "so many may be at once")
		first.wait(40)
		assert.InDelta(t, 10*time.Millisecond, took(), float64(time.Millisecond), "then they are spread")
		by.of("127.0.0.1:2").wait(answersAtOnce)
		assert.InDelta(t, 10*time.Millisecond, took(), float64(time.Millisecond), "each socket has a pace of its own")
		by.of("127.0.0.1:2").wait(10 * answersAtOnce)
		assert.Less(t, took(), 50*time.Millisecond, "more than may be at once count as that")

		time.Sleep(2 * paceTTL)
		by.of("127.0.0.1:3")
		assert.Len(t, by.by, 1, "sockets that are gone are forgotten")
	})
}
