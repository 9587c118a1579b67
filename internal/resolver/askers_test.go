package resolver

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// worker is one of nginx's sockets, without a network.
type worker struct {
	s       *Server
	address netip.AddrPort
	id      uint16

	mu  sync.Mutex
	got []*dns.Msg
}

func newWorker(s *Server, port uint16) *worker {
	return &worker{s: s, address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), id: port << 8}
}

func (w *worker) send(b []byte) error {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return err
	}
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

// ask sends a question, which is answered now or later.
func (w *worker) ask(upstream string) {
	w.id++
	w.copy(upstream)
}

// copy sends the last question again, as nginx does after five seconds.
func (w *worker) copy(upstream string) {
	m := srv(upstream)
	m.Id = w.id
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	w.s.receive(b, client{address: w.address, send: w.send})
	synctest.Wait()
}

// park sends copies for the duration, or until one is answered.
func (w *worker) park(upstream string, d time.Duration) (answered bool) {
	before := len(w.answers())
	for range d / copyEvery {
		time.Sleep(copyEvery)
		if w.copy(upstream); len(w.answers()) > before {
			return true
		}
	}
	return false
}

// copyEvery is nginx's interval between copies of a question.
const copyEvery = 5 * time.Second

func unfetched(r *Server) []string { return slices.Sorted(maps.Keys(r.Unfetched())) }

func inBubble(t *testing.T, test func(t *testing.T, r *Server)) {
	synctest.Test(t, func(t *testing.T) {
		r := New(nil)
		defer r.turns.close()
		test(t, r)
	})
}

func TestFetchedMeansFetchedByAllAskers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		set := time.Now()
		assert.Equal(t, map[string]time.Time{"grpc-a": set}, r.Unfetched(), "nginx has not asked")
		quick, slow := newWorker(r, 1), newWorker(r, 2)
		quick.ask("grpc-a")
		slow.ask("grpc-a")
		require.Len(t, quick.answers(), 1)
		require.Len(t, slow.answers(), 1)
		assert.Equal(t, []string{"grpc-a"}, unfetched(r), "an answer that was sent may have got lost")
		quick.ask("grpc-a")
		assert.Len(t, quick.answers(), 1, "there is nothing new")
		assert.Equal(t, []string{"grpc-a"}, unfetched(r), "the other has not asked again")
		slow.ask("grpc-a")
		assert.Empty(t, unfetched(r))
		select {
		case <-r.Fetched():
		default:
			t.Error("nobody was notified")
		}

		time.Sleep(2 * time.Second)
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)}, time.Time{})
		synctest.Wait()
		require.Len(t, quick.answers(), 2, "a parked question is answered when the servers change")
		assert.Len(t, quick.answers()[1].Answer, 2)
		quick.ask("grpc-a")
		assert.Equal(t, []string{"grpc-a"}, unfetched(r), "the other worker may not have read it yet")
		quick.park("grpc-a", aliveFor+copyEvery)
		assert.Empty(t, unfetched(r), "the other worker has ended, as after a reload")
		time.Sleep(aliveFor + time.Millisecond)
		assert.Equal(t, []string{"grpc-a"}, unfetched(r), "no worker is left")
	})
}

func TestAQuestionIsParkedForMinutes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.ask("grpc-a")
		assert.False(t, w.park("grpc-a", parkFor*9/10-copyEvery), "copies are dropped")
		assert.Empty(t, unfetched(r), "copies show that the worker is alive")
		require.True(t, w.park("grpc-a", parkFor/10+2*copyEvery))
		require.Len(t, w.answers(), 2)
		assert.Equal(t, w.answers()[0].Answer, w.answers()[1].Answer)

		w.ask("grpc-a")
		w.park("grpc-a", time.Minute)
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)}, time.Time{})
		synctest.Wait()
		assert.Len(t, w.answers(), 3, "a change is sent at once")
		assert.Equal(t, w.id, w.answers()[2].Id)
	})
}

func TestALostAnswerIsSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.copy("grpc-a")
		assert.Len(t, w.answers(), 1, "the copy was on its way")
		time.Sleep(copyEvery)
		w.copy("grpc-a")
		assert.Len(t, w.answers(), 2)
		assert.Equal(t, []string{"grpc-a"}, unfetched(r))
		w.ask("grpc-a")
		assert.Empty(t, unfetched(r))
	})
}

func TestNginxWithAShorterTimeoutIsAnsweredSooner(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.ask("grpc-a")
		require.False(t, w.park("grpc-a", 25*time.Second), "its resolver_timeout is 30 s")
		time.Sleep(35 * time.Second)
		w.ask("grpc-a")
		require.False(t, w.park("grpc-a", 5*time.Second))
		assert.True(t, w.park("grpc-a", 15*time.Second))
	})
}

func TestQuestionsOfTooManySocketsAreNotParked(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		for port := range uint16(maxAskers) {
			newWorker(r, 1+port).ask("grpc-a")
		}
		time.Sleep(time.Second) // the pace delays so many answers
		w := newWorker(r, 1000)
		w.ask("grpc-a")
		w.ask("grpc-a")
		assert.Len(t, w.answers(), 2)
		time.Sleep(aliveFor + time.Millisecond)
		w.ask("grpc-a")
		w.ask("grpc-a")
		assert.Len(t, w.answers(), 3, "the others are forgotten")
	})
}

func TestQuestionsForUnknownUpstreamsAreParkedAndBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		w := newWorker(r, 1)
		w.ask("grpc-a")
		assert.False(t, w.park("grpc-a", 2*parkFor))
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		synctest.Wait()
		assert.Len(t, w.answers(), 1)

		for n := range 2 * maxUnknown {
			newWorker(r, uint16(2+n)).ask(fmt.Sprintf("grpc-%d", n))
		}
		assert.Len(t, r.upstreams, maxUnknown+1)
		time.Sleep(aliveFor + time.Millisecond)
		w.ask("grpc-b")
		assert.Len(t, r.upstreams, 2)
		assert.NotContains(t, unfetched(r), "grpc-b")
	})
}

func TestRemovedUpstreamsGetNoAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.ask("grpc-a")
		r.Set(map[string][]Target{}, time.Time{})
		synctest.Wait()
		w.copy("grpc-a")
		assert.Len(t, w.answers(), 1, "after an error nginx would wait for an hour")
		assert.Empty(t, unfetched(r))
		assert.False(t, r.Known("grpc-a"))
	})
}

func TestAfterAReloadOnlyNewWorkersCount(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		old, fresh := newWorker(r, 1), newWorker(r, 2)
		old.ask("grpc-a")
		old.ask("grpc-a")
		require.Empty(t, unfetched(r))
		require.True(t, r.Known("grpc-a"))

		r.Reloading() // the reload fails
		assert.Empty(t, unfetched(r))
		reloaded := r.Reloading()
		fresh.ask("grpc-a")
		require.Len(t, fresh.answers(), 1, "a new worker is answered at once")
		time.Sleep(time.Second)
		reloaded()
		first := time.Now()
		assert.Equal(t, map[string]time.Time{"grpc-a": first}, r.Unfetched(), "it waits since the reload, not since the servers changed")
		time.Sleep(time.Second)
		r.Reloading()()
		assert.Equal(t, map[string]time.Time{"grpc-a": first}, r.Unfetched(), "another reload hides no upstream that is never fetched")
		fresh = newWorker(r, 3)
		fresh.ask("grpc-a")
		require.Len(t, fresh.answers(), 1)
		assert.True(t, r.Known("grpc-a"), "nginx keeps its servers over a reload")
		old.copy("grpc-a")
		assert.Equal(t, []string{"grpc-a"}, unfetched(r))
		fresh.ask("grpc-a")
		assert.Empty(t, unfetched(r))

		r.Set(map[string][]Target{"grpc-a": targets(2)}, time.Time{})
		synctest.Wait()
		assert.Len(t, old.answers(), 2, "an old worker that still has calls gets new servers")
		fresh.ask("grpc-a")
		assert.Empty(t, unfetched(r), "but it does not count")
	})
}

func TestKnownUpstreams(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1), "grpc-b": targets(2)}, time.Time{})
		w := newWorker(r, 1)
		assert.False(t, r.Known("grpc-a"), "it has not asked")
		w.ask("grpc-a")
		assert.False(t, r.Known("grpc-a"), "the answer may have got lost")
		w.ask("grpc-a")
		assert.True(t, r.Known("grpc-a"))
		assert.False(t, r.Known("grpc-b"))
		assert.False(t, r.Known("grpc-c"), "there is no such upstream")

		time.Sleep(time.Millisecond)
		r.Restarted(time.Now())
		assert.False(t, r.Known("grpc-a"), "another nginx has no servers")
		again := newWorker(r, 2)
		again.ask("grpc-a")
		again.ask("grpc-a")
		assert.True(t, r.Known("grpc-a"))
		time.Sleep(aliveFor + time.Millisecond)
		assert.False(t, r.Known("grpc-a"), "it has not asked for a while")
	})
}

// TestARestartedNginxThatHasAsked tells the server about a restart of nginx when the new
// nginx has already asked. Its servers count, so that it need not send a copy of its question
// first.
func TestARestartedNginxThatHasAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1), "grpc-b": targets(2)}, time.Time{})
		killed, started := newWorker(r, 1), newWorker(r, 2)
		for _, upstream := range []string{"grpc-a", "grpc-b"} {
			killed.ask(upstream)
			killed.ask(upstream)
		}
		time.Sleep(time.Second)
		before := time.Now() // the killed nginx still runs
		time.Sleep(time.Millisecond)
		started.ask("grpc-a")
		time.Sleep(time.Second)
		started.ask("grpc-a")

		r.Restarted(before)
		assert.True(t, r.Known("grpc-a"))
		assert.False(t, r.Known("grpc-b"), "only the killed nginx has asked")
		assert.Equal(t, map[string]time.Time{"grpc-b": time.Now()}, r.Unfetched())
	})
}

// TestARestartedNginxIsGivenTime restarts nginx an hour after its servers changed: the time
// that nginx has to fetch them begins with the restart.
func TestARestartedNginxIsGivenTime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Time{})
		w := newWorker(r, 1)
		w.ask("grpc-a")
		w.ask("grpc-a")
		assert.Empty(t, r.Unfetched())
		time.Sleep(time.Hour)

		r.Restarted(time.Now())
		restarted := time.Now()
		assert.Equal(t, map[string]time.Time{"grpc-a": restarted}, r.Unfetched())
		time.Sleep(time.Second)
		assert.Equal(t, map[string]time.Time{"grpc-a": restarted}, r.Unfetched())
		r.Set(map[string][]Target{"grpc-a": targets(2)}, time.Time{})
		assert.Equal(t, map[string]time.Time{"grpc-a": time.Now()}, r.Unfetched(), "the servers changed after the restart")
	})
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		took := func() time.Duration { return time.Since(began) }
		s := New(nil)
		wait := func(port uint16, n int) {
			to := s.turns.enter(newWorker(s, port).address)
			require.NotNil(t, to)
			require.NoError(t, to.pace.wait(t.Context(), n))
			s.turns.leave(to)
		}
		for range answersAtOnce {
			wait(1, 1)
		}
		assert.Zero(t, took(), "so many may be sent at once")
		wait(1, 40)
		assert.InDelta(t, 10*time.Millisecond, took(), float64(time.Millisecond), "then they are paced")
		wait(2, answersAtOnce)
		assert.InDelta(t, 10*time.Millisecond, took(), float64(time.Millisecond), "each socket has a pace of its own")
		wait(2, 10*answersAtOnce)
		assert.Less(t, took(), 50*time.Millisecond, "more than that count as that many")

		time.Sleep(2 * socketTTL)
		wait(3, 1)
		assert.Len(t, s.turns.by, 1, "unused sockets are forgotten")
	})
}

func TestWaitingAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(nil)
		sockets := 0
		for port := uint16(1); ; port++ {
			var last *socket
			n := 0
			for {
				to := s.turns.enter(newWorker(s, port).address)
				if to == nil {
					break
				}
				last = to
				n++
			}
			if last == nil {
				break
			}
			sockets++
			assert.Equal(t, maxSocketTurns, n)
		}
		assert.Equal(t, maxTurns/maxSocketTurns, sockets)
	})
}
