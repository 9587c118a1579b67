// Shop is the example of docs/routing.md: two gRPC services and a web site, and a client for
// them. Nothing in it knows of Consul or of the load balancer.
//
//	shop cart|stock|site [-port 7777]
//	shop call [-addr localhost:5000] [-ca FILE] cart add ITEM | cart list | stock count ITEM | stock watch ITEM
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

var errUsage = errors.New("usage: shop cart|stock|site [-port N], or shop call [-addr HOST:PORT] [-ca FILE] cart add ITEM | cart list | stock count ITEM | stock watch ITEM")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "cart", "stock":
		return serveGRPC(ctx, args[0], args[1:])
	case "site":
		return serveSite(ctx, args[1:])
	case "call":
		return call(ctx, args[1:])
	}
	return errUsage
}
