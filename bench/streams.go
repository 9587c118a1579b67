//go:build bench

package bench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// streams are long gRPC streams through a balancer. Each exchanges a message every
// interval, and stays open until its instance is about to stop. Then its caller closes
// it, as an application would, and opens another one. A stream that ends earlier is
// broken, whatever the reason.
type streams struct {
	interval time.Duration
	cancel   context.CancelFunc
	done     sync.WaitGroup

	mu      sync.Mutex
	leaving map[string]bool
	opened  int
	broken  map[string]int // by the caller's error
}

// silence bounds how long a stream may wait for an answer before it counts as broken.
const silence = 20 * time.Second

// startStreams opens n streams, each on a connection of its own. They end with
// stop, or with the test.
func startStreams(t *testing.T, address string, n int, interval time.Duration) *streams {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &streams{interval: interval, cancel: cancel, leaving: map[string]bool{}, broken: map[string]int{}}
	for range n {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		s.done.Go(func() {
			defer conn.Close()
			for ctx.Err() == nil {
				s.count(s.one(ctx, protos.NewPingClient(conn)))
			}
		})
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// one is the life of one stream.
func (s *streams) one(ctx context.Context, client protos.PingClient) error {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	// Not under ctx: a stream that stop ends isn't broken.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stuck := time.AfterFunc(silence, cancel)
	defer stuck.Stop()
	stream, err := client.Stream(life)
	if err != nil {
		return err
	}
	for {
		if err := stream.Send(&protos.PingMessage{}); err != nil && err != io.EOF { // on EOF, Recv knows why
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		stuck.Reset(silence)
		if ctx.Err() != nil || s.leaves(answer.Greeting) {
			break
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("after its caller closed it: %w", err)
	}
	return nil
}

func (s *streams) count(err error) {
	s.mu.Lock()
	s.opened++
	if err != nil {
		s.broken[fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())]++
	}
	s.mu.Unlock()
	if err != nil {
		time.Sleep(s.interval) // don't open streams as fast as they break
	}
}

// leave makes the callers close their streams on the named instance after the next message.
func (s *streams) leave(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving[name] = true
}

func (s *streams) leaves(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving[name]
}

// stop closes all streams. It returns their number, as calls, and why some of them
// broke.
func (s *streams) stop() lbtest.Result {
	s.cancel()
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return lbtest.Result{Calls: s.opened, Failures: maps.Clone(s.broken)}
}
