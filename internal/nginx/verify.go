package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lbctl/internal/disk"
)

// Serving asks nginx which generation it serves. The error is ErrNotRunning if nginx
// does not answer. While Apply or Activate runs, it may be the old generation or the new
// one; afterwards it is the one they returned.
func (i *Instance) Serving(ctx context.Context) (int, error) { return i.ask(ctx) }

// ask asks a worker of nginx which generation it serves. It makes a new connection each
// time, because one that is kept alive would stay with an old worker.
func (i *Instance) ask(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lbctl/generation", nil)
	if err != nil {
		return 0, err
	}
	response, err := i.socket.Do(request)
	if err != nil {
		return 0, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), rootCause(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64))
	if err != nil {
		return 0, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if response.StatusCode != http.StatusOK || err != nil || n < 1 {
		return 0, fmt.Errorf("ask %s which generation nginx serves: got %s %q, want a number", i.socketPath(), response.Status, body)
	}
	return n, nil
}

func newSocketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // a connection kept alive would stay with an old worker
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// rootCause removes the URL and the address that net/http and net add to an error: they
// mean nothing for a unix socket.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// serves is Serving without the error: it returns 0 if nginx does not answer.
func (i *Instance) serves(ctx context.Context) int {
	n, err := i.Serving(context.WithoutCancel(ctx))
	if err != nil {
		return 0
	}
	return n
}

// A failure says why nginx does not serve a generation.
type failure struct {
	symptom string // what lbctl observed
	reason  string // nginx's own message, "" if there is none
	running bool   // there is a master process
	gaveUp  bool   // nginx has given up on the generation
}

func (f *failure) String() string {
	if f.reason != "" {
		return f.reason
	}
	return f.symptom
}

// reload makes nginx load the current generation, which is n, and waits until nginx
// serves it. It also waits for an nginx that is not running or has just started. log
// must start before the swap.
func (i *Instance) reload(ctx context.Context, n int, log *tail) *failure {
	// Not ctx: returning during the reload would leave unknown what nginx serves.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.opts.VerifyTimeout)
	defer cancel()

	began := time.Now()
	old := i.accepting()
	pid := i.master()
	if pid != 0 { // an nginx that starts needs the bootstrap servers
		if err := i.bootstrap.hide(i.opts.Resolver.Known); err != nil {
			return &failure{symptom: fmt.Sprintf("hide bootstrap servers: %v", err), running: true, gaveUp: true}
		}
		defer func() {
			if err := i.bootstrap.unhide(); err != nil {
				i.opts.Logger.Warn("could not restore bootstrap servers: nginx would start without them", "error", err)
			}
		}()
	}
	if pid == 0 {
		i.opts.Logger.Info("nginx is not running: the generation waits for its start", "generation", n)
	}
	reloaded := i.opts.Resolver.Reloading()
	signalled := 0 // the master process that got the signal to reload
	if pid != 0 {
		if failed := i.signalReload(pid, log); failed != nil {
			return failed
		}
		signalled = pid
	}
	var gaveUpAt time.Time // when lbctl saw that nginx gave up
	wait := 5 * time.Millisecond
	for {
		got, err := i.ask(context.WithoutCancel(ctx)) // without the deadline, so that the failure reports the last answer
		if err == nil && got == n {
			answered := time.Now()
			reloaded()
			i.awaitRetirement(old)
			i.opts.Logger.Debug("nginx answers", "generation", n, "took", answered.Sub(began), "retired", time.Since(answered))
			return nil
		}
		pid = i.master()
		if err == nil && pid != 0 && pid != signalled {
			// A new master process, which may have started with the old generation.
			if failed := i.signalReload(pid, log); failed != nil {
				return failed
			}
			signalled = pid
		}
		log.read()
		if gaveUpAt.IsZero() && log.refused(signalled) {
			gaveUpAt = time.Now()
		}
		// nginx may log an [emerg] after it has moved to the generation, so wait a moment
		// for its answer.
		gaveUp := !gaveUpAt.IsZero() && time.Since(gaveUpAt) > 500*time.Millisecond
		cancelled := signalled == 0 && pid == 0 && ctx.Err() != nil
		if gaveUp || cancelled || whole.Err() != nil {
			return &failure{
				symptom: i.symptom(n, got, err, pid),
				reason:  log.reason(signalled, i.store.link()),
				running: pid != 0,
				gaveUp:  gaveUp,
			}
		}
		select {
		case <-whole.Done():
		case <-time.After(wait):
		}
		wait = min(wait*5/4, 100*time.Millisecond)
	}
}

// retireTimeout limits awaitRetirement, which takes this long only on an overloaded
// machine.
const retireTimeout = 2 * time.Second

// awaitRetirement waits until old workers accept no connections. nginx stops them 0.1 s
// after it has started the new ones. Until then a new connection may get the generation
// before.
func (i *Instance) awaitRetirement(old []int) {
	// Record them only now: a concurrent Processes call would drop workers that have not
	// retired yet.
	defer i.retired.add(slices.Clone(old), time.Now())
	for deadline := time.Now().Add(retireTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		old = slices.DeleteFunc(old, func(pid int) bool { return !accepts(commandLine(pid)) })
		if len(old) == 0 {
			return
		}
	}
}

// accepting returns the workers that accept connections now.
func (i *Instance) accepting() []int {
	processes, err := i.processes()
	if err != nil {
		return nil
	}
	var pids []int
	for _, worker := range processes.Workers {
		pids = append(pids, worker.PID)
	}
	return pids
}

// signalReload makes the master process reload, with SIGHUP.
func (i *Instance) signalReload(pid int, log *tail) *failure {
	err := syscall.Kill(pid, syscall.SIGHUP)
	if err == nil || errors.Is(err, syscall.ESRCH) {
		return nil // reload notices soon that the process has ended
	}
	return &failure{
		reason:  fmt.Sprintf("signal nginx (process %d) to reload: %v", pid, err),
		running: true,
		gaveUp:  true,
	}
}

// symptom describes why nginx does not serve generation n, for a failure without a
// message of nginx. got and err are the last result of ask.
func (i *Instance) symptom(n, got int, err error, pid int) string {
	switch {
	case pid == 0:
		return fmt.Sprintf("%s does not name a running nginx", i.pidPath())
	case err != nil:
		return err.Error()
	default:
		return fmt.Sprintf("nginx serves generation %d, want %d, and %s has no reason", got, n, i.logPath())
	}
}

// A tail reads the lines that are appended to the error log after its creation.
type tail struct {
	path     string
	offset   int64
	partial  string // the last line, if it is incomplete
	messages []message
}

func tailOf(path string) *tail {
	t := &tail{path: path}
	if info, err := os.Stat(path); err == nil {
		t.offset = info.Size()
	}
	return t
}

// read reads the new lines. It ignores an error log that can't be read.
func (t *tail) read() {
	file, err := disk.Open(t.path)
	if err != nil {
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return
	}
	if info.Size() < t.offset { // it was replaced or truncated
		t.offset, t.partial = 0, ""
	}
	const most = 1 << 20 // the next call reads the rest
	text, err := io.ReadAll(io.NewSectionReader(file, t.offset, most))
	if err != nil {
		return
	}
	t.offset += int64(len(text))
	whole := t.partial + string(text)
	end := strings.LastIndexByte(whole, '\n') + 1
	t.partial = whole[end:]
	for _, m := range parseMessages(whole[:end]) {
		if m.level == "emerg" || m.level == "alert" {
			t.messages = append(t.messages, m)
		}
	}
}

// refused reports whether the master process has logged that it does not load the
// configuration. With master 0, any nginx that failed to start counts.
func (t *tail) refused(master int) bool {
	for _, m := range t.messages {
		// A failed bind() is not final: nginx tries five times, and then logs "still
		// could not bind()".
		if m.level == "emerg" && (m.pid == master || master == 0) && !strings.HasPrefix(m.text, "bind() to ") {
			return true
		}
	}
	return false
}

// reason is the message in which the master process refuses the configuration: its
// first [emerg], or else its first [alert]. With master 0, messages of any process
// count.
func (t *tail) reason(master int, dir string) string {
	for _, level := range []string{"emerg", "alert"} {
		for _, m := range t.messages {
			if m.level == level && (m.pid == master || master == 0) {
				return readable(m.text, dir)
			}
		}
	}
	return ""
}
