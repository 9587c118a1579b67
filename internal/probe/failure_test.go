package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// deafPort returns a port of 127.0.0.1 that answers no connection, as a machine does that is
// gone: nobody accepts connections there, and its queue is full.
func deafPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			require.True(t, isTimeout(err), "%v", err)
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	require.Fail(t, "the queue does not fill")
	return ""
}

func TestAConnectionMustBeOpenWithinHalfOfTheTimeout(t *testing.T) {
	address := deafPort(t)
	for _, check := range []policy.Check{"", "http:/", "grpc", checkHeld} {
		t.Run("check "+string(check), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			err := ask(ctx, question{endpoints.HTTP, check, address})
			assert.NoError(t, ctx.Err(), "half of the time is left")
			assert.True(t, isTimeout(err) || errors.Is(err, errLate), "%v", err)
		})
	}
}

func TestAnInstanceIsAskedAgainAtOnceAfterATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		var gone atomic.Bool
		ask := func(ctx context.Context, q question) error {
			if !gone.Load() || q.address != "b.hello:7777" {
				return nil
			}
			deadline, _ := ctx.Deadline()
			time.Sleep(time.Until(deadline) / 2)
			return context.DeadlineExceeded
		}
		following(t, tb, Options{InRotation: true}, ask, []endpoints.Service{service("hello", "a", "b")}, func() {
			for range 20 {
				gone.Store(false)
				time.Sleep(time.Minute)
				require.Equal(t, "hello[a b]", rotation(tb.Entries()))
				gone.Store(true)
				time.Sleep(900 * time.Millisecond)
				assert.Equal(t, "hello[a b]", rotation(tb.Entries()), "one timeout is not enough")
				time.Sleep(1250 * time.Millisecond)
				assert.Equal(t, "hello[a]", rotation(tb.Entries()))
			}
		})
	})
}

func TestATimeoutThatIsNoticedLateIsNotTheInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deadline := time.Now()
		assert.Equal(t, 2, failuresNeeded(unlessLate(context.DeadlineExceeded, deadline), 2))
		time.Sleep(lateness + time.Millisecond)
		assert.Zero(t, failuresNeeded(unlessLate(context.DeadlineExceeded, deadline), 2))
		assert.Equal(t, 2, failuresNeeded(unlessLate(syscall.ECONNREFUSED, deadline), 2), "a refusal is an answer")
		assert.NoError(t, unlessLate(nil, deadline))
	})
}
