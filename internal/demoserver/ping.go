package demoserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/status"

	"lbctl/protos"
)

// pingServer implements protos.Ping: it answers with its name, after a delay.
type pingServer struct {
	protos.UnimplementedPingServer
	name  string
	delay time.Duration
}

func (p *pingServer) SayHello(ctx context.Context, _ *protos.PingMessage) (*protos.PingMessage, error) {
	return p.greet(ctx)
}

func (p *pingServer) Stream(stream protos.Ping_StreamServer) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		greeting, err := p.greet(stream.Context())
		if err != nil {
			return err
		}
		if err := stream.Send(greeting); err != nil {
			return err
		}
	}
}

// greet waits for the delay, or until the caller cancels.
func (p *pingServer) greet(ctx context.Context) (*protos.PingMessage, error) {
	if p.delay > 0 {
		select {
		case <-time.After(p.delay):
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return &protos.PingMessage{Greeting: fmt.Sprintf("Hello from %s.", p.name)}, nil
}
