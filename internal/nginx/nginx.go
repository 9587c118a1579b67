// Package nginx keeps configurations as numbered generations on disk and moves
// a running nginx from one to another, or leaves it where it was.
//
// A generation is a directory, <state>/generations/000042, with the files it
// was given and two of its own: generation.conf, a server on a unix socket that
// answers the generation's number, and generation.json, which describes it. The
// symbolic link <state>/current names the one nginx is to serve. nginx itself is
// nobody's child here: a supervisor starts it with
//
//	nginx -e <run>/error.log -c <state>/current/nginx.conf -g 'daemon off;'
//
// and this package finds its master by <run>/nginx.pid.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lbctl/internal/disk"
)

// What can become of a generation, besides being served. The error that wraps
// one of these is a sentence for the operator, with nginx's own reason.
var (
	// ErrRejected: the configuration is wrong. Nothing was changed.
	ErrRejected = errors.New("configuration refused")
	// ErrRolledBack: nginx could not move to the generation, and serves the one
	// before as if nothing had happened.
	ErrRolledBack = errors.New("rolled back")
	// ErrDegraded: nginx could not move to the generation and does not answer
	// from the one before either.
	ErrDegraded = errors.New("not served, and no way back")
	// ErrNotRunning: nginx does not run, or does not answer. After Apply and
	// Activate the generation is current: nginx takes it when it starts.
	ErrNotRunning = errors.New("nginx does not answer")
	// ErrStore: the state or run directory could not be written. What was there is
	// still there, and nginx was not touched, unless ErrDegraded says so.
	ErrStore = errors.New("cannot write to disk")
)

// The defaults of Options.
const (
	DefaultKeep          = 20
	DefaultVerifyTimeout = 10 * time.Second
)

// Options say where things are. StateDir and RunDir are required.
type Options struct {
	StateDir string // holds generations and current; on a disk that outlives the container
	RunDir   string // holds nginx.pid, error.log and generation.sock; shared with nginx
	Binary   string // nginx; default the one on PATH, then /usr/sbin/nginx

	// Keep is how many generations that nginx has served stay on disk, the
	// current one included; default DefaultKeep.
	Keep int

	// VerifyTimeout is how long nginx may take to answer from a new generation,
	// and to come up when it is not running; default DefaultVerifyTimeout. A bind that fails is
	// tried for 2.5 s by nginx itself: much less makes no sense.
	VerifyTimeout time.Duration

	// Resolver is who nginx asks for the servers of its upstreams; default nobody.
	Resolver Resolver

	Logger *slog.Logger // default slog.Default()
}

// nobody is asked for servers: they are all in the files of generations.
type nobody struct{}

func (nobody) Known(string) bool { return true }
func (nobody) Reloading() func() { return func() {} }

// An Instance is one nginx and its generations. Its methods may be called from
// several goroutines; Apply, Activate and RotateLog wait for one another. Only
// one process may write a state directory.
type Instance struct {
	opts      Options
	build     Build
	store     store
	bootstrap bootstrap
	socket    *http.Client  // reaches generation.sock
	busy      chan struct{} // holds one token while nginx or the store is being changed
	logMax    int64         // bytes error.log may have

	retired retirements
}

// New finds nginx and learns from `nginx -V` what it can do, creates both
// directories, and repairs what a crash left behind: a current link that is
// missing or leads nowhere is set to the newest generation that nginx has
// served, and an nginx that starts finds its bootstrap servers again. It neither needs
// a running nginx nor touches one.
func New(opts Options) (*Instance, error) {
	if opts.StateDir == "" || opts.RunDir == "" {
		return nil, errors.New("nginx: the state directory and the run directory must be given")
	}
	if opts.Keep == 0 {
		opts.Keep = DefaultKeep
	}
	if opts.VerifyTimeout == 0 {
		opts.VerifyTimeout = DefaultVerifyTimeout
	}
	if opts.Resolver == nil {
		opts.Resolver = nobody{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	var err error
	if opts.StateDir, err = filepath.Abs(opts.StateDir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if opts.RunDir, err = filepath.Abs(opts.RunDir); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if strings.ContainsAny(opts.StateDir, "*?[]") {
		return nil, fmt.Errorf(`state directory %q: want a path without "*", "?", "[" and "]": nginx would take it for a pattern`, opts.StateDir)
	}
	for what, path := range map[string]string{"state": opts.StateDir, "run": opts.RunDir} {
		if _, err := Quote(path); err != nil {
			return nil, fmt.Errorf("%s directory: %w", what, err)
		}
	}
	i := &Instance{
		opts:      opts,
		store:     store{dir: opts.StateDir},
		bootstrap: bootstrap{dir: filepath.Join(opts.StateDir, "seeds")},
		busy:      make(chan struct{}, 1),
		logMax:    16 << 20,
	}
	// Linux has 108 bytes for the path in sockaddr_un, and nginx wants the last one for a NUL.
	if path := i.socketPath(); len(path) > 107 {
		return nil, fmt.Errorf("run directory %s is too long: the path of a unix socket has at most 107 bytes, %s has %d; choose a shorter one",
			opts.RunDir, path, len(path))
	}
	i.socket = newSocketClient(i.socketPath())
	if i.opts.Binary, err = findBinary(opts.Binary); err != nil {
		return nil, err
	}
	// Workers run as another user when nginx was started by root: they need to
	// get at the temporary files below the run directory.
	if err := os.MkdirAll(opts.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	if err := i.clear(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if i.build, err = learnBuild(i.opts.Binary, opts.RunDir); err != nil {
		return nil, err
	}
	if err := i.bootstrap.recover(); err != nil {
		i.opts.Logger.Warn("nginx would start without bootstrap servers", "error", err)
	}
	repaired, err := i.store.repair()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if repaired != 0 {
		i.opts.Logger.Warn("current generation was missing, set to the newest one nginx has served", "generation", repaired)
	}
	return i, nil
}

// clear makes the directory of generations, and moves aside whatever is in the place
// of a file or directory and is none: nginx would wait for the reader of a named pipe.
func (i *Instance) clear() error {
	moved := func(aside string, err error) error {
		if aside != "" {
			i.opts.Logger.Warn("something else was in the place of a file of lbctl's, and was moved aside", "now", aside)
		}
		return err
	}
	return errors.Join(
		moved(disk.Directory(i.store.generations())),
		moved(i.store.clearLink()),
		moved(disk.Clear(i.pidPath())),
		moved(i.clearLog()),
		moved(i.clearSocket()),
	)
}

// clearLog leaves a symbolic link to something, such as /dev/stderr, which is an
// operator's.
func (i *Instance) clearLog() (aside string, err error) {
	_, notLink := os.Readlink(i.logPath())
	if _, err := os.Stat(i.logPath()); notLink == nil && err == nil {
		return "", nil
	}
	return disk.Clear(i.logPath())
}

// clearSocket moves aside what nginx could not bind its socket over, except a socket:
// it may be the running nginx's.
func (i *Instance) clearSocket() (aside string, err error) {
	info, err := os.Lstat(i.socketPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode().Type() == fs.ModeSocket:
		return "", nil
	}
	return disk.MoveAside(i.socketPath())
}

func findBinary(name string) (string, error) {
	if name != "" {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("find nginx: %w", err)
		}
		return filepath.Abs(path)
	}
	if path, err := exec.LookPath("nginx"); err == nil {
		return filepath.Abs(path)
	}
	const sbin = "/usr/sbin/nginx" // not on the PATH of Debian's ordinary users
	if _, err := exec.LookPath(sbin); err != nil {
		return "", fmt.Errorf("find nginx: neither on PATH nor at %s", sbin)
	}
	return sbin, nil
}

// Build is what the nginx binary is and can do.
func (i *Instance) Build() Build { return i.build }

func (i *Instance) socketPath() string { return filepath.Join(i.opts.RunDir, "generation.sock") }
func (i *Instance) pidPath() string    { return filepath.Join(i.opts.RunDir, "nginx.pid") }
func (i *Instance) logPath() string    { return filepath.Join(i.opts.RunDir, "error.log") }

// acquire makes the caller the only one who changes anything, until it calls release.
func (i *Instance) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case i.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i *Instance) release() { <-i.busy }
