package registration

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// watchdogName is the watchdog's argument 0, which IsWatchdog checks, and its name in ps
	// and top. It does not contain "registrar", so that "pkill registrar" does not kill it.
	watchdogName = "exec-watchdog"
	// watchdogGrace is how long the group of a killed registrar may take to end after
	// SIGTERM.
	watchdogGrace = time.Second
	// watchdogRestart is the pause before a killed watchdog is started again.
	watchdogRestart = time.Second
)

// watchdog is a process that outlives the registrar for a moment. It reads from a pipe whose
// other end only the registrar has, so the pipe closes when the registrar ends, also by
// SIGKILL. Then the watchdog ends the command's process group, so that none of its processes
// uses the port when the next registrar starts.
//
// It runs in its own session, so that neither a terminal nor a supervisor that kills the
// registrar's process group reaches it.
type watchdog struct {
	pgid    int
	logger  *slog.Logger
	release chan struct{} // closed when the group has ended in order
	over    chan struct{} // closed when the process has ended
}

func startWatchdog(pgid int, logger *slog.Logger) *watchdog {
	w := &watchdog{pgid: pgid, logger: logger, release: make(chan struct{}), over: make(chan struct{})}
	go w.run()
	return w
}

// end ends the process and waits until it has ended.
func (w *watchdog) end() {
	close(w.release)
	<-w.over
}

// run keeps a watchdog running until end is called.
func (w *watchdog) run() {
	defer close(w.over)
	for {
		if err := w.once(); err != nil {
			w.logger.Warn("can't watch the command's process group: it would outlive a registrar that is killed, trying again", "error", err)
		}
		select {
		case <-w.release:
			return
		case <-time.After(watchdogRestart):
		}
	}
}

// once runs one process until end is called. If the process ends earlier, once returns why.
func (w *watchdog) once() error {
	path, err := selfPath()
	if err != nil {
		return fmt.Errorf("start the watchdog: %w", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the watchdog: %w", err)
	}
	defer writer.Close()
	cmd := &exec.Cmd{
		Path: path, Args: []string{watchdogName}, Stdin: reader, Stderr: os.Stderr,
		Env:         []string{}, // the watchdog needs no variables, such as tokens
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	reader.Close()
	if err != nil {
		return fmt.Errorf("start the watchdog: %w", err)
	}
	_, _ = fmt.Fprintln(writer, w.pgid) // fails only if the process has ended, and Wait returns that
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("the watchdog ended: %v", err)
	case <-w.release:
		_ = cmd.Process.Kill() // it ignores all other signals
		<-ended
		return nil
	}
}

// IsWatchdog reports whether this process was started as a watchdog. The program must then
// call [Watchdog] and nothing else.
func IsWatchdog() bool { return os.Args[0] == watchdogName }

// Watchdog waits until the registrar that started this process has ended, then
// ends the process group of the registrar's command, and returns the exit code.
func Watchdog() int {
	setProcessName(watchdogName)
	// The watchdog ignores these signals, because the registrar handles them for the command.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE,
		syscall.SIGUSR1, syscall.SIGUSR2)
	input, _ := io.ReadAll(os.Stdin) // it ends when the registrar ends, in any way
	pgid, err := strconv.Atoi(strings.TrimSpace(string(input)))
	if err != nil || pgid <= 1 {
		fmt.Fprintf(os.Stderr, "registrar: watchdog: %q given as the process group, want a number over 1\n", input)
		return 1
	}
	if len(groupMembers(pgid)) == 0 {
		return 0
	}
	_ = syscall.Kill(-pgid, syscall.SIGTERM)
	_ = syscall.Kill(-pgid, syscall.SIGCONT) // a stopped process handles no other signal but SIGKILL
	for deadline := time.Now().Add(watchdogGrace); time.Now().Before(deadline) && len(groupMembers(pgid)) > 0; {
		time.Sleep(groupPollEvery)
	}
	_ = syscall.Kill(-pgid, syscall.SIGKILL)
	fmt.Fprintf(os.Stderr, "registrar: it was killed; its watchdog ended process group %d of the command\n", pgid)
	return 0
}
