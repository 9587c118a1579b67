// Grpc_client is the demo's client: it calls protos.Ping through the load balancer, once or
// many times, and prints which servers answered. grpc_client -h prints the flags and the exit
// codes.
//
// This file is the whole package: `go run grpc_client/main.go -port=5000` works.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"lbctl/internal/democlient"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(democlient.Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
