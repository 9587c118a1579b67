package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// SurviveBrokenPipe makes a write to standard output or error fail with EPIPE if the
// reader has ended. By default SIGPIPE ends a Go process then: the daemon would die with
// the reader of its log, as in 'lbctl run 2>&1 | tee log' and Ctrl-C, which ends tee
// first.
//
// Call it before the first line of the log: the reader may have ended already. It lasts
// until the process ends, because the daemon logs its own end. It catches the
// signal rather than ignore it: programs that the daemon runs would inherit an ignored
// signal.
func SurviveBrokenPipe() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // nothing receives from the channel
}

// reloadOn reloads the source's files at each SIGHUP, until ctx is done. It calls reread
// with the error of each reload.
func reloadOn(ctx context.Context, hangups <-chan os.Signal, source interface{ Reload(context.Context) error }, reread func(error), logger *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
		}
		err := source.Reload(ctx)
		reread(err)
		if err != nil {
			logger.Warn("SIGHUP: read token file, certificates and templates again; those with errors keep their former content", "error", err)
			continue
		}
		logger.Info("SIGHUP: read token file, certificates and templates again")
	}
}
