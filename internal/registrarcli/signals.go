package registrarcli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"lbctl/internal/registration"
)

// repeatWithin is the time in which a second signal of the same kind counts as the same one. GNU
// timeout sends each signal to its command and then to the command's process group, so the
// command gets it twice within a moment.
const repeatWithin = time.Second

// watchSignals makes a context that ends with the first SIGTERM or SIGINT.
// Each further one hurries the registrar, if it does not repeat the one before. Every
// other signal that a supervisor or an operator sends to a server goes on to the child;
// SIGHUP also makes the registrar read its credentials again. The returned function ends
// the context; after it, signals do nothing.
func watchSignals(registrar *registration.Registrar, logger *slog.Logger) (context.Context, func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT,
		syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		var last lastSignal
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				switch {
				case s != syscall.SIGTERM && s != syscall.SIGINT:
					if s == syscall.SIGHUP {
						registrar.Reload()
					}
					registrar.Signal(s)
				case last.repeatedBy(s, time.Now()):
					logger.Info("the same signal again within a moment, counted as one", "signal", s, "within", repeatWithin)
				case ctx.Err() == nil:
					cancel()
				default:
					registrar.Hurry()
				}
			}
		}
	}()
	// The signals stay caught. Otherwise one that comes while the registrar ends would
	// replace its exit code.
	return ctx, func() { close(done); cancel() }
}

// lastSignal is the last signal that asked the registrar to leave, or to hurry.
type lastSignal struct {
	signal os.Signal
	at     time.Time
}

// repeatedBy reports whether s, which arrives now, repeats the last signal. If not, s becomes
// the last signal.
func (l *lastSignal) repeatedBy(s os.Signal, now time.Time) bool {
	if s == l.signal && now.Sub(l.at) < repeatWithin {
		return true
	}
	*l = lastSignal{signal: s, at: now}
	return false
}
