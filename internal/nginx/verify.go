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

// Serving asks nginx which generation it serves. The error is ErrNotRunning when
// nothing answers. While Apply or Activate is at work it may be the one before
// or the one to come; afterwards it is the one they returned.
func (i *Instance) Serving(ctx context.Context) (int, error) { return i.ask(ctx) }

// ask puts the question to whichever worker takes the connection, a new one each
// time: a kept one would go on reaching an old worker.
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
		DisableKeepAlives: true, // a kept connection would reach an old worker
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// rootCause leaves out the URL and the address that net/http and net put around
// an error: neither means anything for a unix socket.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// serves is Serving for those who only want to know the number: 0 is none.
func (i *Instance) serves(ctx context.Context) int {
	n, err := i.Serving(context.WithoutCancel(ctx))
	if err != nil {
		return 0
	}
	return n
}

// A failure is why nginx does not answer from a generation.
type failure struct {
	what    string // what was seen from outside
	reason  string // nginx's own word, "" when it said nothing
	running bool   // there is a master process
	settled bool   // nginx has given up on it
}

func (f *failure) String() string {
	if f.reason != "" {
		return f.reason
	}
	return f.what
}

// reload tells nginx to take current, which is generation n, and waits until it
// answers from it. An nginx that is not running, or that started meanwhile, is
// waited for. log is what is written to the error log from before the swap on.
func (i *Instance) reload(ctx context.Context, n int, log *tail) *failure {
	// nginx may be in the middle of it: leaving now would leave unknown what it serves.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.opts.VerifyTimeout)
	defer cancel()

	began := time.Now()
	old := i.accepting()
	pid := i.master()
	if pid != 0 { // one that starts is to read them
		if err := i.bootstrap.hide(i.opts.Resolver.Known); err != nil {
			return &failure{what: fmt.Sprintf("hide bootstrap servers: %v", err), running: true, settled: true}
		}
		defer func() {
			if err := i.bootstrap.unhide(); err != nil {
				i.opts.Logger.Warn("nginx would start without bootstrap servers", "error", err)
			}
		}()
	}
	reloaded := i.opts.Resolver.Reloading()
	told := 0 // the master that has been told to reload
	if pid != 0 {
		if failed := i.hangUp(pid, log); failed != nil {
			return failed
		}
		told = pid
	}
	var givenUp time.Time // when nginx was seen to have given up
	wait := 5 * time.Millisecond
	for {
		got, err := i.ask(context.WithoutCancel(ctx)) // not cut by the deadline: the last answer is the one to report
		if err == nil && got == n {
			answered := time.Now()
			reloaded()
			i.retire(old)
			i.opts.Logger.Debug("nginx answers", "generation", n, "took", answered.Sub(began), "retired", time.Since(answered))
			return nil
		}
		pid = i.master()
		if err == nil && pid != 0 && pid != told {
			// It started with what was current before.
			if failed := i.hangUp(pid, log); failed != nil {
				return failed
			}
			told = pid
		}
		log.read()
		if givenUp.IsZero() && log.final(told) {
			givenUp = time.Now()
		}
		// Some of what nginx says at [emerg] it says after it has moved.
		settled := !givenUp.IsZero() && time.Since(givenUp) > 500*time.Millisecond
		cut := told == 0 && pid == 0 && ctx.Err() != nil
		if settled || cut || whole.Err() != nil {
			return &failure{
				what:    i.seen(n, got, err, pid),
				reason:  log.reason(told, i.store.link()),
				running: pid != 0,
				settled: settled,
			}
		}
		select {
		case <-whole.Done():
		case <-time.After(wait):
		}
		wait = min(wait*5/4, 100*time.Millisecond)
	}
}

// retireTimeout bounds retire; on a machine that busy, nothing is in time.
const retireTimeout = 2 * time.Second

// retire waits until old workers take no connections any more. nginx gives the
// new ones 0.1 s before it tells the old ones to stop, and until then whoever
// connects may still meet the generation before.
func (i *Instance) retire(old []int) {
	// Not before they are old: who looks meanwhile would have them forgotten.
	defer i.retired.note(slices.Clone(old), time.Now())
	for deadline := time.Now().Add(retireTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		old = slices.DeleteFunc(old, func(pid int) bool { return !accepts(commandLine(pid)) })
		if len(old) == 0 {
			return
		}
	}
}

// accepting is the workers that take connections now.
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

// hangUp tells the master to reload.
func (i *Instance) hangUp(pid int, log *tail) *failure {
	err := syscall.Kill(pid, syscall.SIGHUP)
	if err == nil || errors.Is(err, syscall.ESRCH) {
		return nil // one that is gone is noticed soon enough
	}
	return &failure{
		reason:  fmt.Sprintf("tell nginx (process %d) to reload: %v", pid, err),
		running: true,
		settled: true,
	}
}

// seen is what nginx looks like from outside when it says nothing itself.
func (i *Instance) seen(n, got int, err error, pid int) string {
	switch {
	case pid == 0:
		return fmt.Sprintf("%s names no running nginx", i.pidPath())
	case err != nil:
		return err.Error()
	default:
		return fmt.Sprintf("nginx serves generation %d, want %d, and %s does not say why", got, n, i.logPath())
	}
}

// A tail is what was appended to the error log since it was made.
type tail struct {
	path     string
	offset   int64
	partial  string // the last line, while it is not complete
	messages []message
}

func tailOf(path string) *tail {
	t := &tail{path: path}
	if info, err := os.Stat(path); err == nil {
		t.offset = info.Size()
	}
	return t
}

// read takes in what is new. An error log that can't be read has nothing to say.
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
	if info.Size() < t.offset { // another file by now, or cut short
		t.offset, t.partial = 0, ""
	}
	const most = 1 << 20 // workers may write a lot meanwhile; the rest comes next time
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

// final is true when the master has said that it will not take the configuration,
// or with master 0 one that failed to start has.
func (t *tail) final(master int) bool {
	for _, m := range t.messages {
		// nginx tries five times to bind, which may yet succeed, and then says
		// "still could not bind()".
		if m.level == "emerg" && (m.pid == master || master == 0) && !strings.HasPrefix(m.text, "bind() to ") {
			return true
		}
	}
	return false
}

// reason is why the master did not take the configuration, or with master 0 why
// none would start: its first [emerg], or else its first [alert].
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
