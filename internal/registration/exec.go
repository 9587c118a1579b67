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

// vacantPatience is how long the server of a killed registrar may take to end: its watchdog
// may need watchdogGrace.
const vacantPatience = 3 * time.Second

// Exec runs the command and keeps it registered while it runs. When ctx is done, Exec sets
// maintenance, drains, sends SIGTERM to the command, then to the rest of its process group,
// sends SIGKILL to the processes that have not ended Config.StopTimeout after the first
// SIGTERM, and deregisters. A command that ends by itself is deregistered at once; then the
// rest of its group is stopped.
//
// The code is the command's own, or 128+n if signal n ended it, or 127 if there is no such
// command, or 126 if it can't be executed. If the service can't be registered, the command
// is stopped and the code is 1. The error is the registrar's own error, if there is one.
//
// If the registrar is killed, its watchdog ends the group: a program that calls Exec must
// begin with [IsWatchdog].
func (r *Registrar) Exec(ctx context.Context, command []string) (code int, err error) {
	r.awaitVacant(ctx)
	if ctx.Err() != nil {
		return 0, nil // asked to leave before the command was started
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
		// ctx is done, the first registration failed, or another registrar has the entry.
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
// started. The server of a killed registrar takes a moment to end, and its answers would
// count as those of the new server.
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
		r.logger.Warn("another server still answers the health check, starting the command nevertheless", "check", r.cfg.Check.Type)
	}
}

// startCode returns the exit code for a command that could not be started.
func startCode(err error) int {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, exec.ErrDot):
		return exitNotExecutable
	}
	return 1
}

// Signal sends a signal to the command of [Registrar.Exec], if there is one.
func (r *Registrar) Signal(sig os.Signal) {
	if server := r.child.Load(); server != nil {
		server.signal(sig)
	}
}

// stop ends the command with SIGTERM, then the rest of its process group, for example the
// server of a script that has not started it with exec. After Config.StopTimeout it kills
// the processes that are left.
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
		r.logger.Warn("killing processes that did not end after SIGTERM", "pids", left, "waited", time.Since(started).Round(time.Millisecond))
		server.signalGroup(syscall.SIGKILL)
		if !server.awaitKilled() {
			r.logger.Warn("processes of the command do not end after SIGKILL", "pids", server.group())
		}
	}
}

// awaitEnd waits until ended is closed, and reports whether it was. The timeout and the
// second call of Hurry end the wait. The first call, signalled by first, is only logged.
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
			r.logger.Info("second request to leave, after the drain: waiting for the command to end, a third request kills it")
		}
	}
}
