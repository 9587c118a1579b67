package registration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Exit codes of [Registrar.Exec] when the command could not be started, the
// same as a shell's.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// vacantPatience is how long the server of a killed registrar may take to end. Its
// watchdog needs watchdogGrace.
const vacantPatience = 3 * time.Second

// Exec runs the server as a child and registers it while it is up. When ctx is
// done the order is: maintenance, drain, SIGTERM for the child, SIGTERM for what
// is left of its process group, SIGKILL for what has not ended
// Config.StopTimeout after the first SIGTERM, deregistration. A child that ends
// by itself is deregistered at once, then the rest of its group is stopped.
//
// The code is the child's own, 128+n when signal n ended it, 127 or 126 when
// there is no such command or it can't be executed. When the service could not
// be registered the child is stopped and the code is 1. The error says what
// went wrong on our side, if anything did.
//
// When the registrar is killed, a process of its own ends the group: programs
// that call Exec begin with [IsWatchdog].
func (r *Registrar) Exec(ctx context.Context, command []string) (code int, err error) {
	r.awaitVacant(ctx)
	if ctx.Err() != nil {
		return 0, nil // asked to leave before anything was started
	}
	server, err := startChild(command, r.logger)
	if err != nil {
		return startCode(err), fmt.Errorf("start the server: %w", err)
	}
	defer server.release()
	r.child.Store(server)
	r.logger.Info("server started", "command", command[0], "pid", server.pid())

	registered, cancel := context.WithCancel(ctx)
	defer cancel()
	joined := make(chan error, 1)
	go func() { joined <- r.join(registered) }()

	var joinErr error
	select {
	case <-server.done:
		cancel()
		<-joined
		r.logger.Info("server ended by itself", "code", server.code())
		r.deregister()
		r.stop(server)
	case joinErr = <-joined:
		// ctx is done, the first registration failed, or the entry is another
		// registrar's.
		r.drain(server.done)
		r.stop(server)
		r.deregister()
	}
	r.stayAway()
	if joinErr != nil {
		return 1, joinErr
	}
	return server.code(), nil
}

// awaitVacant waits until no process answers the health check, before the command is
// started. The server of a registrar that was killed takes a moment to end, and
// its answers would be taken for those of the new one.
func (r *Registrar) awaitVacant(ctx context.Context) {
	if r.cfg.Check.Type == CheckTTL || r.probe(ctx) != nil {
		return
	}
	r.logger.Warn("a server answers the health check before the command is started, waiting for its end",
		"check", r.cfg.Check.Type, "within", vacantPatience)
	patience, cancel := context.WithTimeout(ctx, vacantPatience)
	defer cancel()
	for pause(patience, probeEvery) {
		if r.probe(patience) != nil && patience.Err() == nil {
			return
		}
	}
	if ctx.Err() == nil {
		r.logger.Warn("another server still answers the health check, starting the command all the same", "check", r.cfg.Check.Type)
	}
}

// startCode is the exit code for a command that could not be started.
func startCode(err error) int {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, exec.ErrDot):
		return exitNotExecutable
	}
	return 1
}

// Signal sends the child of [Registrar.Exec] a signal; it does nothing when
// there is none.
func (r *Registrar) Signal(sig os.Signal) {
	if server := r.child.Load(); server != nil {
		server.signal(sig)
	}
}

// stop ends the command with SIGTERM, then what is left of its process group, for
// example the server of a script that has not started it with exec. What has not
// ended after Config.StopTimeout is killed.
func (r *Registrar) stop(server *child) {
	started := time.Now()
	first := r.hurries.afterDrain()
	timeout, cancel := context.WithTimeout(context.Background(), r.cfg.StopTimeout)
	defer cancel()
	if !server.ended() {
		r.logger.Info("stopping the server", "pid", server.pid(), "timeout", r.cfg.StopTimeout)
		server.signal(syscall.SIGTERM)
		server.signalGroup(syscall.SIGCONT) // a stopped process doesn't handle SIGTERM
		if r.awaitEnd(timeout, server.done, first) {
			r.logger.Info("server ended", "code", server.code(), "took", time.Since(started).Round(time.Millisecond))
		}
	}
	if left := server.group(); server.ended() && len(left) > 0 {
		r.logger.Warn("the command left processes running, stopping them", "pids", left)
		server.signalGroup(syscall.SIGTERM)
		server.signalGroup(syscall.SIGCONT)
		r.awaitEnd(timeout, server.groupEnded(timeout), first)
	}
	if left := server.group(); len(left) > 0 {
		r.logger.Warn("killing what did not end after SIGTERM", "pids", left, "waited", time.Since(started).Round(time.Millisecond))
		server.signalGroup(syscall.SIGKILL)
		if !server.awaitKilled() {
			r.logger.Warn("processes of the command do not end after SIGKILL", "pids", server.group())
		}
	}
}

// awaitEnd waits until ended is closed, and tells whether it was. The timeout and
// the second call of Hurry end the wait. The first call, which comes by first, is
// only logged.
func (r *Registrar) awaitEnd(timeout context.Context, ended, first <-chan struct{}) bool {
	for {
		select {
		case <-ended:
			return true
		case <-timeout.Done():
			return false
		case <-r.hurries.second:
			return false
		case <-first:
			first = nil
			r.logger.Info("asked again to leave, the drain is over: waiting for the command to end, asking once more kills it")
		}
	}
}
