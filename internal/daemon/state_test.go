package daemon

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/admin"
	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
	"lbctl/internal/testlog"
)

const patience = 60 * time.Second

// log is the log of a daemon.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// balancer is a daemon and its nginx, in one state directory.
type balancer struct {
	t      *testing.T
	cfg    Config
	binary nginxtest.Binary
	log    *log
	cancel context.CancelFunc
	done   chan error // gets the error of Run
	nginx  *nginxtest.Process
}

func newBalancer(t *testing.T, stateDir string) *balancer {
	t.Helper()
	all := nginxtest.Binaries(t)
	b := &balancer{t: t, binary: all[len(all)-1], log: new(log), done: make(chan error, 1)}
	address := func() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t))) }
	b.cfg = Config{
		StateDir: stateDir,
		Nginx: NginxConfig{
			Binary: b.binary.Path, GRPCListen: render.Listen{address()}, HTTPListen: render.Listen{address()}, DNSListen: address(),
			Workers: 1, OpenFiles: 1024,
		},
		Environ: []string{"GOMAXPROCS=2", "GOGC=100"}, // keeps the settings of the tests
		Logger:  slog.New(slog.NewTextHandler(b.log, nil)),
	}
	t.Cleanup(func() {
		testlog.Show(t, "the daemon", b.log.String)
	})
	return b
}

func (b *balancer) start() {
	b.t.Helper()
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	done := b.done
	go func() { done <- Run(ctx, b.cfg) }()
	b.t.Cleanup(b.cancel)
}

func (b *balancer) stop() {
	b.t.Helper()
	b.cancel()
	require.NoError(b.t, <-b.done)
}

// await starts nginx as a supervisor does, once there is a configuration, and again until it
// starts. It waits until nginx serves one instance. If Run returns first, await returns its
// error.
func (b *balancer) await(want controller.State) (refused error) {
	b.t.Helper()
	client, err := admin.NewClient("unix://" + SocketPath(RunDir(b.cfg.StateDir, b.cfg.RunDir)))
	require.NoError(b.t, err)
	conf := filepath.Join(b.cfg.StateDir, "current", "nginx.conf")
	last := "nothing"
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-b.done:
			b.done <- err // for stop
			return err
		default:
		}
		if info, err := os.Stat(conf); b.nginx == nil && err == nil && info.Mode().IsRegular() && strings.Contains(b.log.String(), "controller started") {
			b.nginx, err = nginxtest.TryStart(b.t, b.binary, conf, RunDir(b.cfg.StateDir, b.cfg.RunDir))
			if err != nil {
				b.t.Logf("nginx does not start yet: %v", err)
			}
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), patience)
		status, err := client.Status(ctx)
		cancel()
		if err == nil && status.State == want && status.Instances == 1 {
			return nil
		}
		last = fmt.Sprintf("%s: %s %v", status.State, status.Summary, err)
	}
	require.Fail(b.t, "not "+string(want), last)
	return nil
}

// catalog starts a Consul with one service of one instance.
func catalog(t *testing.T) {
	t.Helper()
	consul := consultest.Start(t)
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-1", Name: "web", Address: host, Port: number, Tags: []string{"http_server"},
	}))
	t.Setenv("CONSUL_HTTP_ADDR", consul.Addr)
}

// bad has what may be in the place of a file after a crash, a mistake or an attack.
var bad = map[string]func(path string) error{
	"is empty":              func(path string) error { return os.WriteFile(path, nil, 0o644) },
	"is garbage":            func(path string) error { return os.WriteFile(path, []byte("\x00{]garbage\n"), 0o644) },
	"is a directory":        func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o755) },
	"is a named pipe":       func(path string) error { return syscall.Mkfifo(path, 0o644) },
	"is a socket":           socketAt,
	"is a link to nowhere":  func(path string) error { return os.Symlink("/nowhere/at/all", path) },
	"is a link to a device": func(path string) error { return os.Symlink("/dev/zero", path) },
}

func socketAt(path string) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
}

// TestBadState starts the daemon with the state of an earlier one in which files are bad. The
// daemon must serve.
func TestBadState(t *testing.T) {
	catalog(t)
	dir, good := nginxtest.Dir(t), filepath.Join(t.TempDir(), "good")
	first := newBalancer(t, dir)
	first.start()
	require.NoError(t, first.await(controller.Serving))
	first.stop()
	first.nginx.Stop()
	run(t, "cp", "-a", dir, good)
	generation, err := os.Readlink(filepath.Join(dir, "current"))
	require.NoError(t, err)
	seeds, err := filepath.Glob(filepath.Join(dir, "seeds", "start", "*", "*.conf"))
	require.NoError(t, err)
	require.NotEmpty(t, seeds)
	seed, err := filepath.Rel(dir, seeds[0])
	require.NoError(t, err)

	for name, test := range map[string]struct {
		paths  []string
		want   controller.State
		except []string // kinds
	}{
		"files": {paths: []string{
			"history.jsonl", "history.jsonl.new", "endpoints.json", "frozen.json.new", "endpoints.json.new", ".current.new",
			"generations/.new", "generations/.note", "generations/abc", "generations/9223372036854775807", "generations/000900",
			generation + "/generation.json", "seeds/now", "run/nginx.pid", "run/error.log", "run/generation.sock", "run/accesslog.dir",
		}},
		"the pin":                      {paths: []string{"frozen.json"}, want: controller.Frozen},
		"the link":                     {paths: []string{"current", "seeds"}, except: []string{"is a link to nowhere", "is a link to a device"}},
		"all generations":              {paths: []string{"generations", filepath.Dir(seed)}, except: []string{"is a directory", "is a link to nowhere", "is a link to a device"}},
		"the link to nothing":          {paths: []string{"current"}},
		"the main file":                {paths: []string{generation + "/nginx.conf"}},
		"the file of http":             {paths: []string{generation + "/http.conf"}},
		"the file with the number":     {paths: []string{generation + "/generation.conf"}},
		"a file of bootstrap servers":  {paths: []string{seed}},
		"the bootstrap servers' files": {paths: []string{"seeds/start"}, except: []string{"is a link to nowhere", "is a link to a device"}},
	} {
		for kind, create := range bad {
			if slices.Contains(test.except, kind) {
				continue
			}
			t.Run(name+", each "+kind, func(t *testing.T) {
				require.NoError(t, os.RemoveAll(dir))
				run(t, "cp", "-a", good, dir)
				for _, path := range test.paths {
					require.NoError(t, os.RemoveAll(filepath.Join(dir, path)))
					require.NoError(t, create(filepath.Join(dir, path)))
				}
				b := newBalancer(t, dir)
				b.cfg.Nginx = first.cfg.Nginx // nginx listens where its files say
				b.start()
				require.NoError(t, b.await(cmp.Or(test.want, controller.Serving)))
				for _, aside := range movedAside(t, dir) {
					assert.Contains(t, b.log.String(), aside, "the log has each path that was moved aside")
				}
				b.stop()
				b.nginx.Stop()
			})
		}
	}
}

// movedAside returns the paths below dir that a daemon has moved aside.
func movedAside(t *testing.T, dir string) (paths []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), ".broken") {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// refused runs a daemon that must not start, and returns its error.
func refused(t *testing.T, cfg Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return Run(ctx, cfg)
}

// TestRefusedState has state with which a daemon refuses to start. The error names the remedy.
func TestRefusedState(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	for path, kinds := range map[string][]string{
		"lock":           {"is a directory", "is a named pipe", "is a socket", "is a link to nowhere", "is a link to a device"},
		"run/lock":       {"is a directory", "is a named pipe", "is a socket", "is a link to nowhere", "is a link to a device"},
		"run/admin.sock": {"is empty", "is garbage", "is a directory", "is a named pipe", "is a link to nowhere"},
		"generations":    {"is a link to nowhere"},
		"run":            {"is empty", "is a named pipe", "is a link to nowhere"},
	} {
		for _, kind := range kinds {
			t.Run(path+" "+kind, func(t *testing.T) {
				b := newBalancer(t, nginxtest.Dir(t))
				bad := bad[kind]
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(b.cfg.StateDir, path)), 0o755))
				require.NoError(t, bad(filepath.Join(b.cfg.StateDir, path)))
				err := refused(t, b.cfg)
				assert.ErrorContains(t, err, filepath.Join(b.cfg.StateDir, path))
			})
		}
	}
}

// TestDirectories has the places where the run directory can't be.
func TestDirectories(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	for name, test := range map[string]struct{ run, want string }{
		"the state directory":       {"", "is the state directory"},
		"the same by another name":  {"../link", "is the state directory"},
		"among the generations":     {"generations", "which lbctl empties"},
		"in a generation":           {"generations/000001/run", "which lbctl empties"},
		"the bootstrap servers'":    {"seeds", "which lbctl empties"},
		"in the current generation": {"current", "which lbctl empties"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := nginxtest.Dir(t)
			b := newBalancer(t, filepath.Join(parent, "state"))
			require.NoError(t, os.Mkdir(b.cfg.StateDir, 0o755))
			require.NoError(t, os.Symlink("state", filepath.Join(parent, "link")))
			b.cfg.RunDir = filepath.Join(b.cfg.StateDir, test.run)
			err := refused(t, b.cfg)
			assert.ErrorContains(t, err, "--run-dir "+b.cfg.RunDir)
			assert.ErrorContains(t, err, test.want)
			assert.ErrorContains(t, err, "such as "+filepath.Join(b.cfg.StateDir, "run"))
		})
	}
}
