package main

import (
	"context"
	"flag"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"lbctl/examples/routing/shop/shoppb"
)

// serveGRPC serves one of the two gRPC services until ctx is done, and then ends the calls in
// flight.
func serveGRPC(ctx context.Context, service string, args []string) error {
	listener, err := listen(ctx, args)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	name, _ := os.Hostname()
	switch service {
	case "cart":
		shoppb.RegisterCartServer(server, &cart{name: name})
	case "stock":
		shoppb.RegisterStockServer(server, stock{name: name})
	}
	healthpb.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	context.AfterFunc(ctx, server.GracefulStop)
	return server.Serve(listener)
}

func listen(ctx context.Context, args []string) (net.Listener, error) {
	flags := flag.NewFlagSet("shop", flag.ExitOnError)
	port := flags.Int("port", 7777, "port to listen on")
	_ = flags.Parse(args) // it ends the process on a mistake
	return new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(*port))
}

// cart keeps one cart, in memory.
type cart struct {
	shoppb.UnimplementedCartServer
	name string

	mu    sync.Mutex
	items []string
}

func (c *cart) Add(_ context.Context, item *shoppb.Item) (*shoppb.Contents, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.items = append(c.items, item.Name)
	return c.contents(), nil
}

func (c *cart) List(context.Context, *shoppb.Nothing) (*shoppb.Contents, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contents(), nil
}

func (c *cart) contents() *shoppb.Contents {
	return &shoppb.Contents{Items: slices.Clone(c.items), Server: c.name}
}

// stock has as many pieces of an item as its name has letters.
type stock struct {
	shoppb.UnimplementedStockServer
	name string
}

func (s stock) Count(ctx context.Context, item *shoppb.Item) (*shoppb.Amount, error) {
	if item.Name == "slow" {
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second):
		}
	}
	return s.amount(item), nil
}

func (s stock) Watch(item *shoppb.Item, stream grpc.ServerStreamingServer[shoppb.Amount]) error {
	for n := range 5 {
		if n > 0 {
			select {
			case <-stream.Context().Done():
				return stream.Context().Err()
			case <-time.After(time.Second):
			}
		}
		if err := stream.Send(s.amount(item)); err != nil {
			return err
		}
	}
	return nil
}

func (s stock) amount(item *shoppb.Item) *shoppb.Amount {
	return &shoppb.Amount{Pieces: int32(len(item.Name)), Server: s.name}
}
