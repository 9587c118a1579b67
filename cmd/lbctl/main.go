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

// patience is how long after the first signal to end further ones do nothing. GNU timeout
// sends each signal to its command and then to the command's process group, so the command
// gets it twice.
const patience = time.Second

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		time.AfterFunc(patience, stop) // from then on, a signal ends the process at once
	})
	return cli.Main(ctx, cli.System{
		Args:     os.Args[1:],
		In:       os.Stdin,
		Out:      os.Stdout,
		Err:      os.Stderr,
		Environ:  os.Environ(),
		Terminal: cli.TerminalOf(os.Stdout, os.Environ()),
		Now:      time.Now,
	})
}
