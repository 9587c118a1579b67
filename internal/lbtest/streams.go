package lbtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"lbctl/protos"
)

// Streams are long gRPC streams. Each one exchanges messages with its instance until it
// ends.
type Streams struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	at     []string // the instance that answers each
	broken []string
}

// StartStreams opens n streams at a gRPC address, each on a connection of its own, and
// waits until all have an answer. They end with Stop or with the test.
func StartStreams(t testing.TB, address string, n int, pause time.Duration) *Streams {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	s := &Streams{cancel: cancel, at: make([]string, n)}
	for i := range n {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		s.done.Go(func() {
			defer conn.Close()
			if err := s.talk(ctx, i, protos.NewPingClient(conn), pause); err != nil && ctx.Err() == nil {
				s.mu.Lock()
				s.broken = append(s.broken, fmt.Sprintf("stream %d at %s: %v", i, s.at[i], err))
				s.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { s.Stop() })
	Eventually(t, "all streams are answered", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, name := range s.at {
			if name == "" {
				return fmt.Errorf("stream %d is not: %v", i, s.broken)
			}
		}
		return nil
	})
	return s
}

func (s *Streams) talk(ctx context.Context, i int, client protos.PingClient, pause time.Duration) error {
	stream, err := client.Stream(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := stream.Send(&protos.PingMessage{}); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.at[i] = answer.Greeting
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// On is the number of streams on each instance, by its name.
func (s *Streams) On() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	on := map[string]int{}
	for _, name := range s.at {
		on[name]++
	}
	return on
}

// Stop ends the streams. It returns the errors of those that broke before.
func (s *Streams) Stop() []string {
	s.cancel()
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}
