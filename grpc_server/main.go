// Grpc_server is the demo's server: it answers every call of protos.Ping with "Hello from
// NAME.", so that a client sees which server the load balancer has chosen. grpc_server -h
// prints the settings and the exit codes.
//
// This file is the whole package: `go run grpc_server/main.go` works.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"lbctl/internal/demoserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(demoserver.Main(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}
