package resolver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newAsker returns a worker that has fetched the servers of grpc-a.
func newAsker(t *testing.T, r *Server) *worker {
	t.Helper()
	r.Set(map[string][]Target{"grpc-a": targets(1)}, time.Now())
	w := newWorker(r, 1)
	w.ask("grpc-a")
	time.Sleep(askPause)
	w.ask("grpc-a")
	require.Empty(t, unfetched(r))
	return w
}

func TestConvergenceEndsWhenNginxHasTheServers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		w := newAsker(t, r)
		assert.Zero(t, r.Convergence().Count(), "nginx did not ask when the first servers came")

		seen := time.Now()
		time.Sleep(40 * time.Millisecond) // of lbctl
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)}, seen)
		synctest.Wait()
		require.Len(t, w.answers(), 2)
		assert.Zero(t, r.Convergence().Count(), "the answer may have got lost")
		time.Sleep(30*time.Millisecond + askPause) // nginx asks for the new server's address
		w.ask("grpc-a")
		assert.Equal(t, uint64(1), r.Convergence().Count())
		assert.Equal(t, 70*time.Millisecond, r.Convergence().Sum, "nginx's pause before it asks again doesn't count")
	})
}

func TestConvergenceOfChangesThatNginxFetchesTogether(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		w := newAsker(t, r)
		seen := time.Now()
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)}, seen)
		synctest.Wait()
		for n := range 2 {
			time.Sleep(300 * time.Millisecond)
			r.Set(map[string][]Target{"grpc-a": targets(1, 10+n)}, time.Now())
		}
		time.Sleep(askPause - 600*time.Millisecond)
		w.ask("grpc-a")
		assert.Equal(t, uint64(1), r.Convergence().Count(), "of the first change, which alone it has")
		assert.Zero(t, r.Convergence().Sum)
		time.Sleep(askPause)
		w.ask("grpc-a")
		assert.Equal(t, uint64(3), r.Convergence().Count())
		assert.Equal(t, 700*time.Millisecond+400*time.Millisecond, r.Convergence().Sum, "both waited for nginx's next question")
	})
}

func TestConvergenceNeedsAllWorkersThatAsk(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		w := newAsker(t, r)
		slow := newWorker(r, 2)
		slow.ask("grpc-a")
		time.Sleep(askPause)
		slow.ask("grpc-a")
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)}, time.Now())
		synctest.Wait()
		time.Sleep(askPause)
		w.ask("grpc-a")
		assert.Zero(t, r.Convergence().Count(), "the other worker has not asked again")
		w.park("grpc-a", aliveFor+copyEvery)
		assert.Equal(t, uint64(1), r.Convergence().Count(), "the other worker has ended")
	})
}

func TestConvergenceIsThatOfConsulsAnswersOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		w := newAsker(t, r)
		r.Set(map[string][]Target{"grpc-a": targets(1, 2)}, time.Time{}) // as after an ejection
		synctest.Wait()
		time.Sleep(askPause)
		w.ask("grpc-a")
		require.Empty(t, unfetched(r))
		assert.Zero(t, r.Convergence().Count())
	})
}

func TestConvergenceWithAnNginxThatHasStoppedAsking(t *testing.T) {
	inBubble(t, func(t *testing.T, r *Server) {
		w := newAsker(t, r)
		for n := range 3 * maxAwaited { // all while the worker still counts as alive
			r.Set(map[string][]Target{"grpc-a": targets(1, 10+n)}, time.Now())
		}
		synctest.Wait()
		assert.Len(t, r.names["grpc-a"].awaited, maxAwaited, "the memory is bounded")
		time.Sleep(askPause)
		w.ask("grpc-a") // the answer had the newest servers or older ones
		time.Sleep(askPause)
		w.ask("grpc-a")
		assert.Equal(t, uint64(maxAwaited), r.Convergence().Count())
	})
}
