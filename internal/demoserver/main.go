// Package demoserver is the demo's server, the command grpc_server: it answers
// every call of protos.Ping with "Hello from NAME.", so that a client behind the
// load balancer sees who served it.
//
// Beside protos.Ping it offers the standard health service, for "" (the whole
// server) and "protos.Ping", and reflection. It writes one log line per call
// to standard error. Asked to stop (SIGTERM, SIGINT), it says NOT_SERVING,
// lets the calls in flight finish, and cuts off those that take too long;
// grpc_server -h has the details, the settings and the exit codes.
package demoserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
)

// The exit codes, a promise made in the help text.
const (
	exitStopped = 0 // asked to stop, and every call got its answer
	exitFailed  = 1 // could not listen or serve
	exitUsage   = 2 // a flag or variable is wrong
	exitCutOff  = 3 // asked to stop, and calls were cut off
)

// Main serves until ctx is done and the calls in flight are over, and returns
// the exit code. The settings are args and what lookup finds in the environment.
func Main(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	cfg, err := parse(args, lookup)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		return exitStopped
	case err != nil:
		fmt.Fprintf(stderr, "grpc_server: %v\nRun grpc_server -h for the settings.\n", err)
		return exitUsage
	}
	logger := slog.New(cfg.logHandler(stderr))

	listener, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		fmt.Fprintf(stderr, "grpc_server: -listen %q: %v\n", cfg.listen, err)
		return exitFailed
	}
	switch err := serve(ctx, listener, cfg, logger); {
	case errors.Is(err, errCutOff):
		return exitCutOff
	case err != nil:
		fmt.Fprintf(stderr, "grpc_server: %v\n", err)
		return exitFailed
	}
	return exitStopped
}
