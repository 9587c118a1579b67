// Package nginxtest runs real nginx processes in tests, as the load balancer's
// supervisor does, and cleans up after them.
package nginxtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds how long a test waits for nginx to start or stop. It is long because
// test machines are loaded. Only a failing test waits so long.
const patience = 20 * time.Second

// A Binary is an nginx to run tests against.
type Binary struct {
	Path    string // absolute
	Version string // "1.22.1"
}

// Binaries returns every nginx of this machine: the one on PATH (or in /usr/sbin) and
// bin/nginx-1.30 of this repository, which build/nginx-1.30.sh builds. It skips the test
// when both are missing. With LB_TEST_REQUIRE=1 it fails the test when one is missing.
func Binaries(t testing.TB) []Binary {
	t.Helper()
	candidates := []struct{ path, remedy string }{
		{lookPath(), "install nginx, or put it on PATH"},
		{filepath.Join(root(t), "bin", "nginx-1.30"), "build/nginx-1.30.sh bin/nginx-1.30 fetches it"},
	}
	var found []Binary
	for _, c := range candidates {
		version, err := version(c.path)
		switch {
		case err == nil:
			found = append(found, Binary{Path: c.path, Version: version})
		case os.Getenv("LB_TEST_REQUIRE") == "1":
			t.Fatalf("LB_TEST_REQUIRE=1, but nginx is missing: %v (%s)", err, c.remedy)
		default:
			t.Logf("testing without an nginx: %v (%s)", err, c.remedy)
		}
	}
	if len(found) == 0 {
		t.Skip("no nginx to test against: put one on PATH, or run build/nginx-1.30.sh bin/nginx-1.30")
	}
	return found
}

// Each runs test as one subtest for every nginx of Binaries.
func Each(t *testing.T, test func(*testing.T, Binary)) {
	t.Helper()
	for _, binary := range Binaries(t) {
		t.Run("nginx "+binary.Version, func(t *testing.T) { test(t, binary) })
	}
}

func lookPath() string {
	if path, err := exec.LookPath("nginx"); err == nil {
		return path
	}
	return "/usr/sbin/nginx" // not on the PATH of Debian's ordinary users
}

// root is the repository's directory: the one with go.mod above this file.
func root(t testing.TB) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		// Compiled with -trimpath: tests run in their package's directory.
		wd, err := os.Getwd()
		if err != nil {
			t.Fatalf("find the repository: %v", err)
		}
		for dir = wd; dir != "/"; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				break
			}
		}
	}
	return dir
}

var versionLine = regexp.MustCompile(`nginx version: \S+/(\d+\.\d+\.\d+)`)

func version(path string) (string, error) {
	out, err := exec.Command(path, "-v").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s -v: %w", path, err)
	}
	match := versionLine.FindSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("%s -v says %q, want an nginx version", path, out)
	}
	return string(match[1]), nil
}

// Dir returns a new directory, and removes it when the test ends. Unlike that of
// t.TempDir, its path is short, because a unix socket's path has at most 107 bytes, and
// the unprivileged workers of an nginx started by root can reach it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// MemoryDir is like Dir, but the directory is on a tmpfs. It skips the test if there is none.
func MemoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lb")
	if err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// FreePort returns a TCP port of 127.0.0.1 that nothing listens on and that no other call in this
// process was given. It is none of those that the kernel gives to connections: what stops listening
// there can always listen again.
func FreePort(t testing.TB) int {
	t.Helper()
	const first = 10_000
	end := 32_768 // Linux's default
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(text), &end)
	}
	if end < first+1000 { // few are left
		end = 1 << 16
	}
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		port := first + rand.IntN(end-first)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		listener.Close()
		if !ports.given[port] {
			ports.given[port] = true
			return port
		}
	}
	t.Fatalf("no port from %d to %d is free", first, end-1)
	return 0
}

// A Process is an nginx master with its workers.
type Process struct {
	pid    int
	runDir string
	exited chan struct{}
	output bytes.Buffer // of the master; read it only after exited is closed
}

// groups remembers the process group that last ran in a run directory: its
// workers may have survived their master.
var groups sync.Map // run directory -> pgid

// Start runs nginx as the load balancer's container does:
//
//	nginx -e <runDir>/error.log -c <conf> -g 'daemon off;'
//
// in a process group of its own. First it ends the processes of an earlier nginx in the
// same run directory, and removes its generation.sock, which nginx would refuse to bind.
// It returns when nginx listens: nginx then has written its process id to
// <runDir>/nginx.pid. It fails the test when nginx doesn't listen within patience. The
// whole group ends with the test, or by Stop.
func Start(t testing.TB, binary Binary, conf, runDir string) *Process {
	t.Helper()
	p, err := start(t, binary, conf, runDir)
	if err != nil {
		t.Fatalf("start nginx %s: %v", binary.Version, err)
	}
	return p
}

// TryStart is Start for a configuration with which nginx may refuse to start. The error
// then says why.
func TryStart(t testing.TB, binary Binary, conf, runDir string) (*Process, error) {
	t.Helper()
	return start(t, binary, conf, runDir)
}

// StartFails is Start for a configuration with which nginx must refuse to start.
// It returns what nginx printed.
func StartFails(t testing.TB, binary Binary, conf, runDir string) string {
	t.Helper()
	p, err := start(t, binary, conf, runDir)
	if err == nil {
		p.Stop()
		t.Fatalf("nginx %s started with %s, want it to fail", binary.Version, conf)
	}
	return err.Error()
}

func start(t testing.TB, binary Binary, conf, runDir string) (*Process, error) {
	if group, ok := groups.LoadAndDelete(runDir); ok {
		end(group.(int))
	}
	os.Remove(filepath.Join(runDir, "generation.sock"))

	p := &Process{runDir: runDir, exited: make(chan struct{})}
	cmd := exec.Command(binary.Path, "-e", filepath.Join(runDir, "error.log"), "-c", conf, "-g", "daemon off;")
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	// A test binary that panics runs no cleanup. The kernel then ends the master, and
	// the master ends its workers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = 100 * time.Millisecond // surviving workers hold the pipe
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig takes effect when the starting thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	groups.Store(runDir, p.pid)
	t.Cleanup(p.Stop)

	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !p.listens() {
		select {
		case <-p.exited:
			return nil, fmt.Errorf("it exited at once: %s", p.output.Bytes())
		case <-deadline.C:
			p.Stop()
			return nil, fmt.Errorf("no process id in %s after %s: %s", filepath.Join(runDir, "nginx.pid"), patience, p.output.Bytes())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return p, nil
}

// listens is true once nginx has written its process id. nginx does that after it has
// opened its sockets.
func (p *Process) listens() bool {
	text, err := os.ReadFile(filepath.Join(p.runDir, "nginx.pid"))
	return err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(p.pid)
}

// PID is the master's process id.
func (p *Process) PID() int { return p.pid }

// Workers are the process ids of its workers, sorted. A reload replaces the workers.
func (p *Process) Workers() []int {
	var pids []int
	for _, stat := range glob("/proc/[0-9]*/stat") {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // gone meanwhile
		}
		// pid (name) state ppid ...
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(p.pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func glob(pattern string) []string {
	found, _ := filepath.Glob(pattern) // the pattern is valid
	return found
}

// Reload tells the master to reload, as an operator would.
func (p *Process) Reload() { syscall.Kill(p.pid, syscall.SIGHUP) }

// Exited is closed when the master has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Stop ends the master and all workers without waiting for open connections, and
// returns when they have ended. A second call does nothing.
func (p *Process) Stop() {
	select {
	case <-p.exited:
	default:
		syscall.Kill(p.pid, syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(patience):
		}
	}
	if groups.CompareAndDelete(p.runDir, p.pid) { // false: a later Start has ended it
		end(p.pid)
	}
}

// KillMaster ends the master with SIGKILL. Its workers live on and keep serving
// until the next Start in the same run directory, Stop, or the end of the test.
func (p *Process) KillMaster() {
	syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.exited
}

// Kill ends the master and all workers with SIGKILL, as a machine without memory does.
func (p *Process) Kill() {
	if groups.CompareAndDelete(p.runDir, p.pid) { // false: a later Start has ended it
		end(p.pid)
	}
	<-p.exited
}

// end kills a process group and waits until it is empty. The wait has a bound: under an
// init that doesn't reap, zombies stay in their group.
func end(group int) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err := syscall.Kill(-group, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
			return
		}
	}
}
