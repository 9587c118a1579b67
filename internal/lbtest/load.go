package lbtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"lbctl/protos"
)

// Load is callers that call all along and remember what came back.
type Load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	calls    int
	failures map[string]int
	first    map[string]time.Time
	last     map[string]time.Time
	doomed   time.Time // when the last call that failed was started
}

// maxCalls bounds every load: no test needs more.
const maxCalls = 2_000_000

// StartLoad starts so many callers against a gRPC address, each of which pauses
// between its calls. It ends with Stop, with the test, or after ten minutes.
func StartLoad(t testing.TB, address string, callers int, pause time.Duration) *Load {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	l := &Load{
		cancel:   cancel,
		failures: map[string]int{},
		first:    map[string]time.Time{},
		last:     map[string]time.Time{},
	}
	for range callers {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		l.done.Go(func() {
			defer conn.Close()
			l.call(ctx, protos.NewPingClient(conn), pause)
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *Load) call(ctx context.Context, client protos.PingClient, pause time.Duration) {
	for ctx.Err() == nil {
		// Not under ctx: a call that is cut short by Stop is no failure.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		started := time.Now()
		answer, err := client.SayHello(call, &protos.PingMessage{})
		cancel()
		now := time.Now()
		l.mu.Lock()
		l.calls++
		if err != nil {
			l.failures[fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())]++
			if started.After(l.doomed) {
				l.doomed = started
			}
		} else {
			if _, seen := l.first[answer.Greeting]; !seen {
				l.first[answer.Greeting] = now
			}
			l.last[answer.Greeting] = now
		}
		enough := l.calls >= maxCalls
		l.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// First is when the named backend answered for the first time; zero if never.
func (l *Load) First(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first[name]
}

// Last is when the named backend answered last; zero if never.
func (l *Load) Last(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[name]
}

// Calls is how many calls have ended.
func (l *Load) Calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// WaitMore waits until another n calls have ended.
func (l *Load) WaitMore(t testing.TB, n int) {
	t.Helper()
	from := l.Calls()
	Eventually(t, fmt.Sprintf("%d more calls have ended", n), func() error {
		if now := l.Calls(); now < from+n {
			return fmt.Errorf("%d so far", now-from)
		}
		return nil
	})
}

// Result is what a load has counted.
type Result struct {
	Calls    int
	Failures map[string]int // by what the caller was told
	Names    []string       // who has answered, sorted
	// LastFailedStart is when the last call that failed was started; zero when
	// none did.
	LastFailedStart time.Time
}

// Failed is how many calls failed.
func (r Result) Failed() int {
	n := 0
	for _, count := range r.Failures {
		n += count
	}
	return n
}

// Stop ends the callers after their last call, and returns what they counted.
func (l *Load) Stop() Result {
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	return Result{
		Calls:           l.calls,
		Failures:        maps.Clone(l.failures),
		Names:           slices.Sorted(maps.Keys(l.first)),
		LastFailedStart: l.doomed,
	}
}

func (l *Load) end() {
	l.cancel()
	l.done.Wait()
}
