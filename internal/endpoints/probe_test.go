package endpoints

import (
	"context"
	"errors"
	"net"
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

func refused(context.Context, Protocol, string) error {
	return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

func TestProbeReleasesWhatRefusesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := table(t)
		tb.answers = refused
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
		tb.answers = func(ctx context.Context, _ Protocol, address string) error {
			if dead.Load() && address == "b.hello:7777" {
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
		tb.answers = func(context.Context, Protocol, string) error {
			if n++; n%2 == 0 {
				return nil
			}
			return refused(t.Context(), GRPC, "")
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
		tb.answers = refused
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
		assert.Zero(t, enough(err), "%v", err)
	}
	for _, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, context.DeadlineExceeded, &net.DNSError{IsNotFound: true}, errors.New("other")} {
		assert.Equal(t, probeFall, enough(err), "%v", err)
	}
	assert.Equal(t, networkFall, enough(syscall.ENETUNREACH), "it may come back")
}
