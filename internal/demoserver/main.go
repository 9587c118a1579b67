// Package demoserver is the demo's server, the command grpc_server: it answers every call of
// protos.Ping with "Hello from NAME.", so that a client sees which server the load balancer
// has chosen.
//
// Beside protos.Ping it has gRPC's health service, for "" (the whole server) and
// "protos.Ping", and reflection. It writes one log line for each call to standard error. On
// SIGTERM or SIGINT it reports NOT_SERVING, lets the calls in flight finish, and cuts off those
// that take too long. grpc_server -h prints the details, the settings and the exit codes.
package demoserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"lbctl/internal/demotrace"
)

// The exit codes, a promise made in the help text.
const (
	exitStopped = 0 // stopped by a signal, every call answered
	exitFailed  = 1 // could not listen or serve
	exitUsage   = 2 // a flag or variable is wrong
	exitCutOff  = 3 // stopped by a signal, calls in flight were cut off
)

// lastSpans bounds the wait for the receiver of traces after the last call.
const lastSpans = 3 * time.Second

// Main serves until ctx is done and the calls in flight have ended, and returns the exit code.
// It takes its settings from args, and from the environment through lookup.
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
	var metrics net.Listener
	if cfg.metrics != "" {
		if metrics, err = net.Listen("tcp", cfg.metrics); err != nil {
			_ = listener.Close()
			fmt.Fprintf(stderr, "grpc_server: -metrics %q: %v\n", cfg.metrics, err)
			return exitFailed
		}
	}
	tracing, err := demotrace.Start(ctx, "grpc_server", func(err error) { logger.Warn("traces", "error", err) })
	if err != nil {
		fmt.Fprintf(stderr, "grpc_server: %v\n", err)
		return exitFailed
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
		defer cancel()
		if err := tracing.Stop(last); err != nil {
			logger.Warn("the last traces are lost", "error", err)
		}
	}()
	switch err := serve(ctx, listener, metrics, cfg, logger, tracing.Server()...); {
	case errors.Is(err, errCutOff):
		return exitCutOff
	case err != nil:
		fmt.Fprintf(stderr, "grpc_server: %v\n", err)
		return exitFailed
	}
	return exitStopped
}
