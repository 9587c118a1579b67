package registration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Exit codes of [Registrar.Exec] when the command could not be started, the
// same as a shell's.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Exec runs the server as a child and registers it while it is up. When ctx is
// done the order is: maintenance, drain, SIGTERM for the child, at most
// Config.StopTimeout of waiting and then SIGKILL, deregistration. A child that
// ends by itself is deregistered at once.
//
// The code is the child's own, 128+n when signal n ended it, 127 or 126 when
// there is no such command or it can't be executed. When the service could not
// be registered the child is stopped and the code is 1. The error says what
// went wrong on our side, if anything did.
func (r *Registrar) Exec(ctx context.Context, command []string) (code int, err error) {
	server, err := startChild(command)
	if err != nil {
		code = 1
		switch {
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
			code = exitNotFound
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, exec.ErrDot):
			code = exitNotExecutable
		}
		return code, fmt.Errorf("start the server: %w", err)
	}
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
	case joinErr = <-joined:
		// ctx is done, or the first registration failed.
		if r.registered {
			r.drain(server.done)
		}
		r.stop(server)
	}
	if r.attempted {
		r.deregister()
	}
	if joinErr != nil {
		return 1, joinErr
	}
	return server.code(), nil
}

// Signal sends the child of [Registrar.Exec] a signal; it does nothing when
// there is none.
func (r *Registrar) Signal(sig os.Signal) {
	if server := r.child.Load(); server != nil {
		server.signal(sig)
	}
}

func (r *Registrar) stop(server *child) {
	select {
	case <-server.done:
		r.logger.Info("server ended while draining", "code", server.code())
		return
	default:
	}
	started := time.Now()
	r.logger.Info("stopping the server", "pid", server.pid(), "timeout", r.cfg.StopTimeout)
	server.signal(syscall.SIGTERM)
	select {
	case <-server.done:
		r.logger.Info("server ended", "code", server.code(), "took", time.Since(started).Round(time.Millisecond))
		return
	case <-time.After(r.cfg.StopTimeout):
	case <-r.hurry:
	}
	r.logger.Warn("killing the server, it did not end after SIGTERM", "pid", server.pid(), "waited", time.Since(started).Round(time.Millisecond))
	server.kill()
	<-server.done
}

// child is the server's process.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

func startChild(command []string) (*child, error) {
	c := &child{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{})}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.cmd.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go func() {
		// The kernel ends the child with the thread that started it (see
		// childAttributes): hold on to that thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = c.cmd.Wait() // how it ended is in ProcessState
		close(c.done)
	}()
	return c, <-started
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) signal(sig os.Signal) { _ = c.cmd.Process.Signal(sig) } // it may have ended meanwhile

// kill ends the process and what it started in its process group.
func (c *child) kill() { _ = syscall.Kill(-c.pid(), syscall.SIGKILL) }

// code is the exit code; read it after done is closed.
func (c *child) code() int {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return c.cmd.ProcessState.ExitCode()
}
