package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// surviveBrokenPipe has a write to a standard output or error that nobody reads any
// more fail with EPIPE. Go's default is that SIGPIPE ends the process: the daemon would
// die with the reader of its log, as in 'lbctl run 2>&1 | tee log' and Ctrl-C, which
// ends tee first.
//
// It holds for the rest of the process, which logs its end too. The signal is caught,
// not ignored: programs that the daemon runs would inherit the latter.
func surviveBrokenPipe() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // nobody needs to hear of it
}

// reloadOn reads again what an operator may have changed, at each SIGHUP until ctx is
// done.
func reloadOn(ctx context.Context, hangups <-chan os.Signal, source interface{ Reload() error }, logger *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
		}
		if err := source.Reload(); err != nil {
			logger.Warn("SIGHUP: token file, certificates and templates were read again; what can't be used stays as it was", "error", err)
			continue
		}
		logger.Info("SIGHUP: token file, certificates and templates were read again")
	}
}
