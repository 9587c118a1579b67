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
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"lbctl/protos"
)

// Load is callers that call until Stop, and count the answers.
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

// A Caller makes calls of one kind, over connections of its own.
type Caller interface {
	// Call makes one call and returns the name of the instance that answered.
	Call(ctx context.Context) (name string, err error)
	Close() error
}

// StartLoad starts n callers of a gRPC address. Each one pauses between its calls. The
// load ends with Stop, with the test, or after half an hour.
func StartLoad(t testing.TB, address string, callers int, pause time.Duration) *Load {
	t.Helper()
	return StartCallers(t, callers, pause, func() (Caller, error) {
		return DialGRPC(address, insecure.NewCredentials())
	})
}

// StartCallers is StartLoad for calls of any kind: dial makes each caller.
func StartCallers(t testing.TB, callers int, pause time.Duration, dial func() (Caller, error)) *Load {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	l := &Load{
		cancel:   cancel,
		failures: map[string]int{},
		first:    map[string]time.Time{},
		last:     map[string]time.Time{},
	}
	for range callers {
		caller, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		l.done.Go(func() {
			defer caller.Close()
			l.call(ctx, caller, pause)
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *Load) call(ctx context.Context, caller Caller, pause time.Duration) {
	for ctx.Err() == nil {
		// Not under ctx: otherwise Stop would make the last call fail.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		started := time.Now()
		name, err := caller.Call(call)
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
			if _, seen := l.first[name]; !seen {
				l.first[name] = now
			}
			l.last[name] = now
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

type grpcCaller struct {
	conn   *grpc.ClientConn
	client protos.PingClient
}

// DialGRPC makes a caller of the Ping service at an address.
func DialGRPC(address string, creds credentials.TransportCredentials, opts ...grpc.DialOption) (Caller, error) {
	conn, err := grpc.NewClient(address, append(opts, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		return nil, err
	}
	return &grpcCaller{conn: conn, client: protos.NewPingClient(conn)}, nil
}

func (c *grpcCaller) Call(ctx context.Context) (string, error) {
	answer, err := c.client.SayHello(ctx, &protos.PingMessage{})
	return answer.GetGreeting(), err
}

func (c *grpcCaller) Close() error { return c.conn.Close() }

// First is when the named instance answered for the first time; zero if never.
func (l *Load) First(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first[name]
}

// Last is when the named instance answered last; zero if never.
func (l *Load) Last(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[name]
}

// Calls is the number of calls that have ended.
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

// Result is the counts of a load.
type Result struct {
	Calls    int
	Failures map[string]int // by the caller's error
	Names    []string       // of the instances that answered, sorted
	// LastFailedStart is when the last call that failed was started; zero when
	// none did.
	LastFailedStart time.Time
}

// Failed is the number of calls that failed.
func (r Result) Failed() int {
	n := 0
	for _, count := range r.Failures {
		n += count
	}
	return n
}

// Stop ends the callers after their last call, and returns the counts.
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
