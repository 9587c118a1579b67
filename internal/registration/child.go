package registration

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groupPollEvery is how often the members of a process group are listed while it is being
// stopped.
const groupPollEvery = 20 * time.Millisecond

// killedPatience is how long processes may take to end after SIGKILL. It is needed only for
// a process that hangs in the kernel.
const killedPatience = 2 * time.Second

// child is the command's process, and the process group that it leads.
type child struct {
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	watchdog *watchdog
}

// groupMember is a running process of the command's group.
type groupMember struct {
	pid     int
	stopped bool // by SIGSTOP, SIGTTIN or another signal of that kind
}

// startChild starts the command, and the watchdog that ends its process group if
// the registrar is killed. Call release when the group has ended.
func startChild(command []string, logger *slog.Logger) (*child, error) {
	c := &child{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{})}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if isTerminal(os.Stdin) {
		// The command is in a background process group of the terminal, so the kernel would
		// stop it if it read from the terminal.
		c.cmd.Stdin = nil
	}
	c.cmd.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go func() {
		// The kernel ends the child with the thread that started it (see childAttributes),
		// so that thread must not end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = c.cmd.Wait() // ProcessState says how it ended
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	c.watchdog = startWatchdog(c.pid(), logger)
	return c, nil
}

func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) signal(sig os.Signal) { _ = c.cmd.Process.Signal(sig) } // it may have ended

// ended reports whether the command has ended. Other processes of its group may still run.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// signalGroup sends a signal to every process of the group.
func (c *child) signalGroup(sig syscall.Signal) { _ = syscall.Kill(-c.pid(), sig) } // the group may be empty by now

// group returns the ids of the group's processes that have not ended.
func (c *child) group() []int {
	var pids []int
	for _, member := range groupMembers(c.pid()) {
		pids = append(pids, member.pid)
	}
	return pids
}

// groupEnded returns a channel that is closed when all processes of the group have ended,
// unless ctx is done before.
func (c *child) groupEnded(ctx context.Context) <-chan struct{} {
	empty := make(chan struct{})
	go func() {
		ticker := time.NewTicker(groupPollEvery)
		defer ticker.Stop()
		for len(c.group()) > 0 {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
		close(empty)
	}()
	return empty
}

// awaitKilled waits until the command and its group have ended after SIGKILL, and reports
// whether they ended in time.
func (c *child) awaitKilled() bool {
	ctx, cancel := context.WithTimeout(context.Background(), killedPatience)
	defer cancel()
	for _, ended := range []<-chan struct{}{c.done, c.groupEnded(ctx)} {
		select {
		case <-ended:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// stopped returns the id of a stopped process of the group; 0 if there is none.
func (c *child) stopped() int {
	for _, member := range groupMembers(c.pid()) {
		if member.stopped {
			return member.pid
		}
	}
	return 0
}

// release ends the watchdog. Call it when the group has ended.
func (c *child) release() { c.watchdog.end() }

// code returns the exit code. For a process that did not end after SIGKILL it is the code
// for SIGKILL.
func (c *child) code() int {
	if !c.ended() {
		return 128 + int(syscall.SIGKILL)
	}
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return c.cmd.ProcessState.ExitCode()
}
