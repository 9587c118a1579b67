// Package democlient is the demo's client, the command grpc_client: it calls protos.Ping
// through the load balancer, once or many times, and prints which servers answered.
//
// One call prints the answer. More calls print a summary: the answers by server, the failures
// by gRPC code, the latencies. With -json the summary is one JSON object, whose fields are
// those of [report]. Events (a server's first answer, a code's first failure, a broken stream)
// go to standard error. grpc_client -h prints the flags and the exit codes.
package democlient

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	"lbctl/internal/demotrace"
)

// The exit codes, a promise made in the help text.
const (
	exitAnswered = 0 // every call was answered
	exitFailed   = 1 // a call failed, a stream broke, or no call was answered
	exitUsage    = 2 // a flag is wrong
)

// lastSpans bounds the wait for the receiver of traces after the last call.
const lastSpans = 3 * time.Second

// Main makes the calls that args ask for and returns the exit code. When ctx is done it
// starts no more calls.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		return exitAnswered
	case err != nil:
		fmt.Fprintf(stderr, "grpc_client: %v\nRun grpc_client -h for the flags.\n", err)
		return exitUsage
	}
	events := stderr
	if cfg.quiet || cfg.calls == 1 {
		events = io.Discard // the result of a single call includes its failure
	}
	var once sync.Once // a receiver that is away is away for all spans
	untraced := func(err error) {
		once.Do(func() { fmt.Fprintf(stderr, "grpc_client: traces: %v\n", err) })
	}
	tracing, err := demotrace.Start(ctx, "grpc_client", untraced)
	if err != nil {
		fmt.Fprintf(stderr, "grpc_client: %v\n", err)
		return exitUsage
	}
	rec := newRecorder(cfg, events)
	if cfg.trace {
		rec.traces = stderr
	}
	r, err := load(ctx, cfg, rec, tracing.Client()...)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
	defer cancel()
	if err := tracing.Stop(last); err != nil {
		untraced(err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "grpc_client: %v\n", err)
		return exitUsage
	}

	switch {
	case cfg.json:
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		err = out.Encode(r)
	case cfg.calls == 1:
		err = writeAnswer(stdout, stderr, r)
	default:
		err = writeSummary(stdout, r)
	}
	if err != nil {
		fmt.Fprintf(stderr, "grpc_client: write the result: %v\n", err)
		return exitFailed
	}
	if !r.ok() {
		return exitFailed
	}
	return exitAnswered
}
