// Package nginx keeps configurations as numbered generations on disk and moves
// a running nginx from one to another, or back if that fails.
//
// A generation is a directory, <state>/generations/000042, with the files of a
// configuration and two more: generation.conf, a server on a unix socket that answers
// the generation's number, and generation.json, which describes it. The symbolic link
// <state>/current points to the generation that nginx shall serve. This package does
// not start nginx. A supervisor starts it with
//
//	nginx -e <run>/error.log -c <state>/current/nginx.conf -g 'daemon off;'
//
// and this package finds its master process with <run>/nginx.pid.
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

// The ways in which a change can fail. An error that wraps one of these is a sentence
// for the operator, with nginx's own reason.
var (
	// ErrRejected: the configuration is wrong. Nothing was changed.
	ErrRejected = errors.New("configuration refused")
	// ErrRolledBack: nginx could not move to the generation, and serves the one before.
	ErrRolledBack = errors.New("rolled back")
	// ErrDegraded: nginx could not move to the generation, and does not serve the one
	// before either.
	ErrDegraded = errors.New("not served, and the rollback failed")
	// ErrNotRunning: nginx does not run, or does not answer. After Apply and
	// Activate the generation is current: nginx serves it when it starts.
	ErrNotRunning = errors.New("nginx does not answer")
	// ErrStore: the state or run directory could not be written. Neither the files on
	// disk nor nginx have changed, unless the error is an ErrDegraded too.
	ErrStore = errors.New("cannot write to disk")
)

// The defaults of Options.
const (
	DefaultKeep          = 20
	DefaultVerifyTimeout = 10 * time.Second
)

// Options are the settings of an Instance. StateDir and RunDir are required.
type Options struct {
	StateDir string // holds generations and current; on a disk that outlives the container
	RunDir   string // holds nginx.pid, error.log and generation.sock; shared with nginx
	Binary   string // nginx; default the one on PATH, then /usr/sbin/nginx

	// Keep is how many generations that nginx has served stay on disk, the
	// current one included; default DefaultKeep.
	Keep int

	// VerifyTimeout is how long nginx may take to answer from a new generation,
	// and to come up when it is not running; default DefaultVerifyTimeout. nginx itself
	// retries a failed bind for 2.5 s, so the timeout must be longer than that.
	VerifyTimeout time.Duration

	// Resolver is the DNS server that nginx asks for the servers of its upstreams;
	// default none.
	Resolver Resolver

	Logger *slog.Logger // default slog.Default()
}

// noResolver is the Resolver of an nginx that asks for no servers, because they are all
// in the files of generations.
type noResolver struct{}

func (noResolver) Known(string) bool { return true }
func (noResolver) Reloading() func() { return func() {} }

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
	logMax    int64         // size in bytes at which error.log is rotated

	retired retirements
}

// New finds nginx, runs `nginx -V`, creates both directories, and repairs them after a
// crash: it sets a missing or broken current link to the newest generation that nginx
// has served, and restores the bootstrap servers for the start of nginx. It needs no
// running nginx and does not change one.
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
		opts.Resolver = noResolver{}
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
		return nil, fmt.Errorf(`state directory %q: want a path without "*", "?", "[" and "]": nginx would read it as a pattern`, opts.StateDir)
	}
	for what, path := range map[string]string{"state": opts.StateDir, "run": opts.RunDir} {
		if _, err := Quote(path); err != nil {
			return nil, fmt.Errorf("%s directory: %w", what, err)
		}
	}
	i := &Instance{
		opts:      opts,
		store:     store{dir: opts.StateDir},
		bootstrap: bootstrap{dir: filepath.Join(opts.StateDir, "seeds"), logger: opts.Logger},
		busy:      make(chan struct{}, 1),
		logMax:    16 << 20,
	}
	// sockaddr_un has 108 bytes for the path on Linux, and nginx ends it with a NUL.
	if path := i.socketPath(); len(path) > 107 {
		return nil, fmt.Errorf("run directory %s is too long: the path of a unix socket has at most 107 bytes, %s has %d; choose a shorter one",
			opts.RunDir, path, len(path))
	}
	i.socket = newSocketClient(i.socketPath())
	if i.opts.Binary, err = findBinary(opts.Binary); err != nil {
		return nil, err
	}
	// If root starts nginx, workers run as another user and need access to temporary
	// files below the run directory.
	if err := os.MkdirAll(opts.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	if err := i.clearPaths(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if i.build, err = readBuild(i.opts.Binary, opts.RunDir); err != nil {
		return nil, err
	}
	if err := i.protectLog(); err != nil {
		i.opts.Logger.Warn("nginx's error log may be readable by everybody", "error", err)
	}
	if err := i.bootstrap.restore(); err != nil {
		i.opts.Logger.Warn("could not restore bootstrap servers: nginx would start without them", "error", err)
	}
	repaired, err := i.store.repair()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if repaired != 0 {
		i.opts.Logger.Warn("current generation was missing, set to another one", "generation", repaired)
	}
	return i, nil
}

// Observe returns the nginx of a run directory for a program that does not control it: only
// Processes and Serving may be called. It changes nothing. binary is the path of nginx's program.
func Observe(runDir, binary string) *Instance {
	i := &Instance{opts: Options{RunDir: runDir, Binary: binary}}
	i.socket = newSocketClient(i.socketPath())
	return i
}

// clearPaths makes the directory of generations, and moves aside everything of the wrong
// type at the paths of lbctl's files and directories: nginx would block on a named pipe,
// for example.
func (i *Instance) clearPaths() error {
	moved := logMoved(i.opts.Logger)
	return errors.Join(
		moved(disk.Directory(i.store.generations())),
		moved(i.store.clearLink()),
		moved(disk.Clear(i.pidPath())),
		moved(i.clearLog()),
		moved(i.clearSocket()),
	)
}

// logMoved returns a function that logs the result of a function of disk that moves something
// aside.
func logMoved(logger *slog.Logger) func(aside string, err error) error {
	return func(aside string, err error) error {
		if aside != "" {
			logger.Warn("moved aside something of the wrong type at the path of one of lbctl's files", "now", aside)
		}
		return err
	}
}

// clearLog keeps a symbolic link that leads somewhere, such as to /dev/stderr: an
// operator has made it.
func (i *Instance) clearLog() (aside string, err error) {
	_, notLink := os.Readlink(i.logPath())
	if _, err := os.Stat(i.logPath()); notLink == nil && err == nil {
		return "", nil
	}
	return disk.Clear(i.logPath())
}

// clearSocket moves aside everything at the socket's path except a socket, which may
// belong to the running nginx.
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
		return "", fmt.Errorf("find nginx: it is neither on PATH nor at %s", sbin)
	}
	return sbin, nil
}

// Build returns the version and the modules of the nginx executable.
func (i *Instance) Build() Build { return i.build }

// Binary returns the path of nginx's program.
func (i *Instance) Binary() string { return i.opts.Binary }

func (i *Instance) socketPath() string { return filepath.Join(i.opts.RunDir, "generation.sock") }
func (i *Instance) pidPath() string    { return filepath.Join(i.opts.RunDir, "nginx.pid") }
func (i *Instance) logPath() string    { return filepath.Join(i.opts.RunDir, "error.log") }

// acquire locks the Instance for changes until release, or fails when ctx is done.
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
