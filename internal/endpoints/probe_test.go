package endpoints

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// probing runs Probe in a bubble and re-observes an empty catalog whenever the
// table asks for it.
func probing(t *testing.T, tb *Table, test func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tb.Probe(ctx) }()
	test()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func refused(context.Context, question) error {
	return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

func TestProbeReleasesWhatRefusesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := table(t)
		tb.ask = refused
		tb.Observe(time.Now(), []Service{service("hello", "a")})
		probing(t, tb, func() {
			tb.Observe(time.Now(), nil)
			time.Sleep(900 * time.Millisecond)
			synctest.Wait()
			assert.Len(t, tb.Held(), 1, "one refusal is not enough")
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			assert.Empty(t, tb.Held())
			<-tb.Changed()
			assert.Empty(t, tb.Observe(time.Now(), nil))
		})
	})
}

func TestProbeKeepsWhatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := table(t)
		var dead atomic.Bool
		tb.ask = func(ctx context.Context, q question) error {
			if dead.Load() && q.address == "b.hello:7777" {
				<-ctx.Done()
				return ctx.Err() // as a host that is gone: nothing answers
			}
			return nil
		}
		tb.Observe(time.Now(), []Service{service("hello", "a", "b")})
		probing(t, tb, func() {
			tb.Observe(time.Now(), nil)
			time.Sleep(time.Minute)
			assert.Len(t, tb.Held(), 2)
			dead.Store(true)
			time.Sleep(5 * time.Second)
			require.Len(t, tb.Held(), 1)
			assert.Equal(t, "a", tb.Held()[0].Instance.ID)
		})
	})
}

func TestProbeCountsFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := table(t)
		var n int
		tb.ask = func(context.Context, question) error {
			if n++; n%2 == 0 {
				return nil
			}
			return refused(t.Context(), question{})
		}
		tb.Observe(time.Now(), []Service{service("hello", "a")})
		probing(t, tb, func() {
			tb.Observe(time.Now(), nil)
			time.Sleep(time.Minute)
			assert.Len(t, tb.Held(), 1)
		})
	})
}

func TestProbeRestsWhileConsulCantBeTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := table(t)
		tb.ask = refused
		tb.Observe(time.Now(), []Service{service("hello", "a")})
		tb.SetTrust(time.Now(), Trust{Filtered: true})
		probing(t, tb, func() {
			tb.Observe(time.Now(), nil)
			time.Sleep(time.Hour)
			assert.Len(t, tb.Held(), 1)
			tb.SetTrust(time.Now(), Trust{})
			time.Sleep(2 * time.Second)
			assert.Empty(t, tb.Held())
		})
	})
}

func TestOurOwnTroubleSaysNothingAboutAnInstance(t *testing.T) {
	for _, err := range []error{nil, syscall.EMFILE, syscall.EADDRNOTAVAIL, &net.DNSError{IsTimeout: true}} {
		assert.Zero(t, enough(err, 2), "%v", err)
	}
	for _, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, context.DeadlineExceeded, &net.DNSError{IsNotFound: true}, errors.New("other")} {
		assert.Equal(t, 2, enough(err, 2), "%v", err)
	}
	assert.Equal(t, 6, enough(syscall.ENETUNREACH, 2), "it may come back")
}

// following runs Probe in a bubble, and observes services whenever the table
// asks for it.
func following(t *testing.T, tb *Table, services []Service, test func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	tb.Observe(time.Now(), services)
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tb.Changed():
				tb.Observe(time.Now(), services)
			}
		}
	}()
	probing(t, tb, test)
	cancel()
	<-done
}

func TestProbeEjectsWhatCantBeReachedAndTakesItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := tuned(t, Options{Probe: true})
		var dead atomic.Bool
		tb.ask = func(ctx context.Context, q question) error {
			assert.Equal(t, Check(""), q.check)
			if dead.Load() && q.address == "b.hello:7777" {
				return refused(ctx, q)
			}
			return nil
		}
		following(t, tb, []Service{service("hello", "a", "b", "c", "d:critical")}, func() {
			time.Sleep(time.Minute)
			assert.Equal(t, "hello[a b c]", rotation(tb.Entries()))
			dead.Store(true)
			time.Sleep(900 * time.Millisecond)
			assert.Equal(t, "hello[a b c]", rotation(tb.Entries()), "one failure is not enough")
			time.Sleep(1300 * time.Millisecond)
			assert.Equal(t, "hello[a c]", rotation(tb.Entries()))
			assert.Equal(t, "connection refused", tb.Entries()[0].Ejections[0].Reason)
			time.Sleep(time.Hour)
			assert.Equal(t, "hello[a c]", rotation(tb.Entries()))
			dead.Store(false)
			time.Sleep(900 * time.Millisecond)
			assert.Equal(t, "hello[a c]", rotation(tb.Entries()), "one answer is not enough")
			time.Sleep(1300 * time.Millisecond)
			assert.Equal(t, "hello[a b c]", rotation(tb.Entries()))
		})
	})
}

func TestProbeEjectsWhatNeverAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := tuned(t, Options{Probe: true})
		tb.ask = func(ctx context.Context, q question) error {
			if q.address == "b.hello:7777" {
				<-ctx.Done() // as a host that is gone: nothing answers
				return ctx.Err()
			}
			return nil
		}
		following(t, tb, []Service{service("hello", "a", "b")}, func() {
			time.Sleep(4 * time.Second)
			assert.Equal(t, "hello[a]", rotation(tb.Entries()))
			assert.Equal(t, "no answer in time", tb.Entries()[0].Ejections[0].Reason)
		})
	})
}

func TestProbeAsksEachServiceItsOwnCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		reset := func() map[string]int {
			mu.Lock()
			defer mu.Unlock()
			last := asked
			asked = map[string]int{}
			return last
		}
		ask := func(_ context.Context, q question) error {
			mu.Lock()
			defer mu.Unlock()
			asked[string(q.check)+" "+q.address]++
			return nil
		}
		page, none, odd := service("page", "a"), service("none", "a"), service("odd", "a")
		page.Check, none.Check = "http:/health", CheckNone
		odd.OK = false // never understood: nobody sends anything there
		services := []Service{page, none, odd, service("hello", "a")}

		tb := tuned(t, Options{Probe: true, ProbeInterval: 10 * time.Second})
		tb.ask = ask
		following(t, tb, services, func() {
			time.Sleep(100 * time.Second)
			last := reset()
			assert.ElementsMatch(t, []string{"http:/health a.page:7777", " a.hello:7777"}, slices.Collect(maps.Keys(last)))
			for who, times := range last {
				assert.InDelta(t, 10, times, 2, who)
			}
			tb.Observe(time.Now(), []Service{page})
			time.Sleep(20 * time.Second)
			reset()
			time.Sleep(20 * time.Second)
			assert.Equal(t, []string{"http:/health a.page:7777", "protocol a.hello:7777", "protocol a.none:7777", "protocol a.odd:7777"},
				slices.Sorted(maps.Keys(reset())), "those that vanished are held")
		})
		reset()

		tb = tuned(t, Options{})
		tb.ask = ask
		following(t, tb, services, func() {
			time.Sleep(time.Minute)
			assert.Empty(t, reset(), "without Options.Probe only held ones are asked")
		})
	})
}

func TestProbeIsBounded(t *testing.T) {
	big := service("hello")
	for n := range 1000 {
		big.Instances = append(big.Instances, service("hello", fmt.Sprint("i", n)).Instances...)
	}
	t.Run("in how many are asked a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := tuned(t, Options{Probe: true})
			var mu sync.Mutex
			asked, second := map[string]int{}, map[int64]int{}
			tb.ask = func(_ context.Context, q question) error {
				mu.Lock()
				defer mu.Unlock()
				asked[q.address]++
				second[time.Now().Unix()]++
				return nil
			}
			following(t, tb, []Service{big}, func() {
				time.Sleep(20 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				for _, times := range second {
					assert.LessOrEqual(t, times, probesPerSecond*11/10)
				}
				require.Len(t, asked, 1000)
				total := 0
				for who, times := range asked {
					assert.InDelta(t, 20*probesPerSecond/1000, times, 1, "%s has its turn like others", who)
					total += times
				}
				assert.InDelta(t, 20*probesPerSecond, total, probesPerSecond)
			})
		})
	})
	t.Run("in how many are asked at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := tuned(t, Options{Probe: true, ProbeTimeout: 10 * time.Second})
			var now, most atomic.Int64
			tb.ask = func(ctx context.Context, _ question) error {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				<-ctx.Done()
				return ctx.Err()
			}
			following(t, tb, []Service{big}, func() {
				time.Sleep(30000 / probesPerSecond * time.Second)
				assert.EqualValues(t, probesAtOnce, most.Load())
				assert.Len(t, tb.Entries()[0].Rotation(), 500, "all have been asked often enough")
			})
		})
	})
}

func TestOurOwnTroubleEjectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := tuned(t, Options{Probe: true})
		tb.ask = func(context.Context, question) error { return &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL} }
		following(t, tb, []Service{service("hello", "a", "b")}, func() {
			time.Sleep(time.Minute)
			assert.Equal(t, "hello[a b]", rotation(tb.Entries()))
		})
	})
}

func TestProbeGoesOnWhileConsulIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := tuned(t, Options{Probe: true})
		tb.ask = func(ctx context.Context, q question) error {
			if q.address == "b.hello:7777" {
				return refused(ctx, q)
			}
			return nil
		}
		tb.SetTrust(time.Now(), Trust{NoLeader: true})
		following(t, tb, []Service{service("hello", "a", "b")}, func() {
			time.Sleep(time.Minute)
			assert.Equal(t, "hello[a]", rotation(tb.Entries()))
		})
	})
}
