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

// groupPollEvery is how often a process group is asked for its members while it
// is being stopped.
const groupPollEvery = 20 * time.Millisecond

// killedPatience is how long processes may take to end after SIGKILL. Only one
// that hangs in the kernel takes longer than a moment.
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
		// The command is in a background process group of the terminal: the
		// kernel would stop it when it reads.
		c.cmd.Stdin = nil
	}
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

func (c *child) signal(sig os.Signal) { _ = c.cmd.Process.Signal(sig) } // it may have ended meanwhile

// ended tells whether the command has ended. Others of its group may still run.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// signalGroup sends a signal to every process of the group.
func (c *child) signalGroup(sig syscall.Signal) { _ = syscall.Kill(-c.pid(), sig) } // it may be empty meanwhile

// group are the ids of the group's processes that have not ended.
func (c *child) group() []int {
	var pids []int
	for _, member := range groupMembers(c.pid()) {
		pids = append(pids, member.pid)
	}
	return pids
}

// groupEnded returns a channel that is closed when no process of the group runs
// any more, unless ctx is done before.
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

// awaitKilled waits for the end of a command and a group that were sent SIGKILL,
// and tells whether they ended in time.
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

// stopped is the id of a process of the group that is stopped, 0 for none.
func (c *child) stopped() int {
	for _, member := range groupMembers(c.pid()) {
		if member.stopped {
			return member.pid
		}
	}
	return 0
}

// release ends the watchdog. The group has ended.
func (c *child) release() { c.watchdog.end() }

// code is the exit code; that of SIGKILL for a process that did not end after it.
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
