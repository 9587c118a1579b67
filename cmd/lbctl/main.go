// Command lbctl keeps nginx serving what Consul says, and reports its state.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"lbctl/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return cli.Main(ctx, cli.System{
		Args:     os.Args[1:],
		Out:      os.Stdout,
		Err:      os.Stderr,
		Environ:  os.Environ(),
		Terminal: cli.TerminalOf(os.Stdout, os.Environ()),
		Now:      time.Now,
	})
}
