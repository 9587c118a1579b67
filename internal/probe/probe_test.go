package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policytest"
)

// service makes a gRPC service with instances like "a" (passing) or "b:critical", each with
// its own address.
func service(name string, instances ...string) endpoints.Service {
	s := endpoints.Service{Name: name, Spec: endpoints.Spec{Protocol: endpoints.GRPC, Routes: []endpoints.Route{{Path: "/" + name}}}, OK: true}
	for _, word := range instances {
		id, status, found := strings.Cut(word, ":")
		if !found {
			status = "passing"
		}
		s.Instances = append(s.Instances, endpoints.Instance{
			ID: id, Node: "node-" + id, Address: id + "." + name, Port: 7777, Weight: 1, Status: endpoints.Status(status),
		})
	}
	return s
}

// rotation returns the entries' rotation as "hello[a b] world[c]".
func rotation(entries []endpoints.Entry) string {
	var all []string
	for _, e := range entries {
		var ids []string
		for _, i := range e.Rotation() {
			ids = append(ids, i.ID)
		}
		all = append(all, fmt.Sprintf("%s%v", e.Name, ids))
	}
	return strings.Join(all, " ")
}

func newTable(t *testing.T) *endpoints.Table {
	t.Helper()
	tb, err := endpoints.Open("", endpoints.Options{GuardHold: 5 * time.Minute})
	require.NoError(t, err)
	return tb
}

type asker func(ctx context.Context, q question) error

// probing runs a Prober of the table while test runs.
func probing(t *testing.T, tb *endpoints.Table, opts Options, ask asker, test func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	p := New(tb, opts)
	p.ask = ask
	go func() { done <- p.Run(ctx) }()
	test()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func refused(context.Context, question) error {
	return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

func TestProbeReleasesHeldInstancesAfterTwoFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		ask := refused
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a")})
		probing(t, tb, Options{}, ask, func() {
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

func TestProbeKeepsHeldInstancesThatAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		var dead atomic.Bool
		ask := func(ctx context.Context, q question) error {
			if dead.Load() && q.address == "b.hello:7777" {
				<-ctx.Done()
				return ctx.Err() // like a host that is gone and never answers
			}
			return nil
		}
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a", "b")})
		probing(t, tb, Options{}, ask, func() {
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
		tb := newTable(t)
		var n int
		ask := func(context.Context, question) error {
			if n++; n%2 == 0 {
				return nil
			}
			return refused(t.Context(), question{})
		}
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a")})
		probing(t, tb, Options{}, ask, func() {
			tb.Observe(time.Now(), nil)
			time.Sleep(time.Minute)
			assert.Len(t, tb.Held(), 1)
		})
	})
}

func TestProbePausesWhileConsulCantBeTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		ask := refused
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a")})
		tb.SetTrust(time.Now(), endpoints.Trust{Filtered: true})
		probing(t, tb, Options{}, ask, func() {
			tb.Observe(time.Now(), nil)
			time.Sleep(time.Hour)
			assert.Len(t, tb.Held(), 1)
			tb.SetTrust(time.Now(), endpoints.Trust{})
			time.Sleep(2 * time.Second)
			assert.Empty(t, tb.Held())
		})
	})
}

func TestLocalErrorsAreNotFailuresOfInstances(t *testing.T) {
	for _, err := range []error{nil, syscall.EMFILE, syscall.EADDRNOTAVAIL, &net.DNSError{IsTimeout: true}} {
		assert.Zero(t, failuresNeeded(err, 2), "%v", err)
	}
	for _, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, context.DeadlineExceeded, &net.DNSError{IsNotFound: true}, errors.New("other")} {
		assert.Equal(t, 2, failuresNeeded(err, 2), "%v", err)
	}
	assert.Equal(t, 6, failuresNeeded(syscall.ENETUNREACH, 2), "the network may come back")
}

// following is probing with a loop that observes services whenever Changed fires.
func following(t *testing.T, tb *endpoints.Table, opts Options, ask asker, services []endpoints.Service, test func()) {
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
	probing(t, tb, opts, ask, test)
	cancel()
	<-done
}

func TestProbeEjectsUnreachableInstancesAndReadmitsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		var dead atomic.Bool
		ask := func(ctx context.Context, q question) error {
			assert.Equal(t, policy.Check(""), q.check)
			if dead.Load() && q.address == "b.hello:7777" {
				return refused(ctx, q)
			}
			return nil
		}
		following(t, tb, Options{InRotation: true}, ask, []endpoints.Service{service("hello", "a", "b", "c", "d:critical")}, func() {
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

func TestProbeEjectsInstancesThatNeverAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		ask := func(ctx context.Context, q question) error {
			if q.address == "b.hello:7777" {
				<-ctx.Done() // like a host that is gone and never answers
				return ctx.Err()
			}
			return nil
		}
		following(t, tb, Options{InRotation: true}, ask, []endpoints.Service{service("hello", "a", "b")}, func() {
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
		page.Policy, none.Policy = policytest.Settings("check", "http:/health"), policytest.Settings("check", "none")
		odd.OK = false // never valid, so it gets no traffic
		services := []endpoints.Service{page, none, odd, service("hello", "a")}

		tb := newTable(t)

		following(t, tb, Options{InRotation: true, Interval: 10 * time.Second}, ask, services, func() {
			time.Sleep(100 * time.Second)
			last := reset()
			assert.ElementsMatch(t, []string{"http:/health a.page:7777", " a.hello:7777"}, slices.Collect(maps.Keys(last)))
			for who, times := range last {
				assert.InDelta(t, 10, times, 2, who)
			}
			tb.Observe(time.Now(), []endpoints.Service{page})
			time.Sleep(20 * time.Second)
			reset()
			time.Sleep(20 * time.Second)
			assert.Equal(t, []string{"http:/health a.page:7777", "protocol a.hello:7777", "protocol a.none:7777"},
				slices.Sorted(maps.Keys(reset())), "those that vanished are held, but for the one that was never served")
		})
		reset()

		tb = newTable(t)

		following(t, tb, Options{}, ask, services, func() {
			time.Sleep(time.Minute)
			assert.Empty(t, reset(), "without InRotation only held instances are probed")
		})
	})
}

func TestProbeIsBounded(t *testing.T) {
	big := service("hello")
	for n := range 1000 {
		big.Instances = append(big.Instances, service("hello", fmt.Sprint("i", n)).Instances...)
	}
	t.Run("in probes a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t)
			var mu sync.Mutex
			asked, second := map[string]int{}, map[int64]int{}
			ask := func(_ context.Context, q question) error {
				mu.Lock()
				defer mu.Unlock()
				asked[q.address]++
				second[time.Now().Unix()]++
				return nil
			}
			following(t, tb, Options{InRotation: true}, ask, []endpoints.Service{big}, func() {
				time.Sleep(20 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				for _, times := range second {
					assert.LessOrEqual(t, times, perSecond*11/10)
				}
				require.Len(t, asked, 1000)
				total := 0
				for who, times := range asked {
					assert.InDelta(t, 20*perSecond/1000, times, 1, "%s has its turn like others", who)
					total += times
				}
				assert.InDelta(t, 20*perSecond, total, perSecond)
			})
		})
	})
	t.Run("in probes at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tb := newTable(t)
			var now, most atomic.Int64
			ask := func(ctx context.Context, _ question) error {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				<-ctx.Done()
				return ctx.Err()
			}
			following(t, tb, Options{InRotation: true, Timeout: 10 * time.Second}, ask, []endpoints.Service{big}, func() {
				time.Sleep(30000 / perSecond * time.Second)
				assert.EqualValues(t, atOnce, most.Load())
				assert.Len(t, tb.Entries()[0].Rotation(), 500, "all have been probed often enough")
			})
		})
	})
}

func TestLocalErrorsEjectNoInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		ask := func(context.Context, question) error { return &net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL} }
		following(t, tb, Options{InRotation: true}, ask, []endpoints.Service{service("hello", "a", "b")}, func() {
			time.Sleep(time.Minute)
			assert.Equal(t, "hello[a b]", rotation(tb.Entries()))
		})
	})
}

func TestProbeGoesOnWhileConsulIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		ask := func(ctx context.Context, q question) error {
			if q.address == "b.hello:7777" {
				return refused(ctx, q)
			}
			return nil
		}
		tb.SetTrust(time.Now(), endpoints.Trust{NoLeader: true})
		following(t, tb, Options{InRotation: true}, ask, []endpoints.Service{service("hello", "a", "b")}, func() {
			time.Sleep(time.Minute)
			assert.Equal(t, "hello[a]", rotation(tb.Entries()))
		})
	})
}

// TestAFailingProbePutsOffStepsOfSlowStarts has one instance in slow start while the machine
// of another one dies. No step comes between the first failed probe and the
// ejection.
func TestAFailingProbePutsOffStepsOfSlowStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb, err := endpoints.Open("", endpoints.Options{SlowStart: 9 * time.Second}) // a step each second
		require.NoError(t, err)
		tb.SetByReload(nil)
		var dead atomic.Bool
		ask := func(ctx context.Context, q question) error {
			if dead.Load() && q.address == "c.hello:7777" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		all := []endpoints.Service{service("hello", "a", "b", "c")}
		tb.Observe(time.Now(), all)
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a", "b:critical", "c")})
		back := time.Now()
		tb.Observe(back, all)
		weight := func(e endpoints.Entry) int { return e.Rotation()[1].Weight }
		probing(t, tb, Options{InRotation: true}, ask, func() {
			dead.Store(true)
			var step, ejected time.Duration
			before := 1
			for ejected == 0 && time.Since(back) < 8*time.Second {
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				e := tb.Observe(time.Now(), all)[0]
				if len(e.Ejections) > 0 {
					ejected = time.Since(back)
				} else if weight(e) != before {
					step, before = time.Since(back), weight(e)
				}
			}
			assert.Greater(t, ejected, 2*time.Second)
			assert.Greater(t, ejected-step, time.Second, "the time between the last step and the ejection")
		})
	})
}
