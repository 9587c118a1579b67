// Package lbtest runs whole load balancers in tests and benchmarks: the real
// lbctl and the real nginx as processes, gRPC servers as instances, and callers that
// count failed calls.
package lbtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/nginxtest"
	"lbctl/internal/testlog"
)

// Patience bounds a wait for a condition that should come soon. It is long because test
// machines are loaded. Only a failing test waits so long.
const Patience = 30 * time.Second

// Outage is how long Consul is away in tests of that: the environment variable
// LB_E2E_OUTAGE (for example 10m), or else usual.
func Outage(t testing.TB, usual time.Duration) time.Duration {
	t.Helper()
	given := os.Getenv("LB_E2E_OUTAGE")
	if given == "" {
		return usual
	}
	outage, err := time.ParseDuration(given)
	if err != nil {
		t.Fatalf("LB_E2E_OUTAGE: %v", err)
	}
	return outage
}

// Options say what balancer to run.
type Options struct {
	Consul string           // address of the agent's HTTP API, "host:port"
	Token  string           // Consul's token; empty without ACLs
	Nginx  nginxtest.Binary // the nginx to control
	Args   []string         // further arguments of "lbctl run"
	Lbctl  string           // path of lbctl; default that of this checkout, see Binary
	// StateDir is the state directory of lbctl and nginx; default a new one. Its path
	// must be short, see nginxtest.Dir.
	StateDir string
}

// Balancer is a running lbctl and its nginx. Each can be ended without the other one.
type Balancer struct {
	GRPC, HTTP string // where nginx listens, "127.0.0.1:port"
	StateDir   string

	dns   string // where lbctl answers nginx's questions
	logs  string // directory of nginx's access log
	t     testing.TB
	opts  Options
	lbctl *exec.Cmd
	ended chan struct{}
	log   string // path of lbctl's log
	out   string // path of its standard output
	nginx *nginxtest.Process
}

// Start starts lbctl, and starts nginx as soon as there is a configuration. Both end
// with the test.
func Start(t testing.TB, opts Options) *Balancer {
	t.Helper()
	dir := nginxtest.Dir(t)
	b := &Balancer{
		GRPC:     net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t))),
		HTTP:     net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t))),
		StateDir: filepath.Join(dir, "state"),
		dns:      net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t))),
		logs:     nginxtest.MemoryDir(t),
		log:      filepath.Join(dir, "lbctl.log"),
		out:      filepath.Join(dir, "lbctl.out"),
		t:        t,
		opts:     opts,
	}
	if opts.StateDir != "" {
		b.StateDir = opts.StateDir
	}
	t.Cleanup(func() {
		b.KillLbctl()
		testlog.Show(t, "lbctl", b.Log)
	})
	b.StartLbctl()
	b.StartNginx()
	return b
}

// DNS is where lbctl answers nginx's questions, "127.0.0.1:port".
func (b *Balancer) DNS() string { return b.dns }

// AccessLogDir is the directory of nginx's access log.
func (b *Balancer) AccessLogDir() string { return b.logs }

// StartLbctl starts the daemon, with the state directory of the earlier one.
func (b *Balancer) StartLbctl(args ...string) {
	b.t.Helper()
	out, err := os.OpenFile(b.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	b.StartLbctlTo(out, args...)
}

// StartLbctlTo is StartLbctl with another standard output.
func (b *Balancer) StartLbctlTo(out *os.File, args ...string) {
	b.t.Helper()
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	all := []string{"run", "--state-dir", b.StateDir, "--nginx", b.opts.Nginx.Path,
		"--grpc-listen", b.GRPC, "--http-listen", b.HTTP, "--dns-listen", b.dns, "--admin", "none", "--open-files", "4096"}
	cmd := exec.Command(b.binary(), append(append(all, b.opts.Args...), args...)...)
	// An lbctl of an older commit refuses a flag that it does not know, and not a variable.
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+b.opts.Consul, "CONSUL_HTTP_TOKEN="+b.opts.Token, "LBCTL_ACCESS_LOG_DIR="+b.logs)
	cmd.Stdout, cmd.Stderr = out, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended := make(chan struct{})
	started := make(chan error)
	go func() {
		defer log.Close()
		runtime.LockOSThread() // Pdeathsig takes effect when the starting thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		b.t.Fatalf("start lbctl: %v", err)
	}
	b.lbctl, b.ended = cmd, ended
}

func (b *Balancer) binary() string {
	if b.opts.Lbctl != "" {
		return b.opts.Lbctl
	}
	return Binary(b.t)
}

// StopLbctl ends the daemon with SIGTERM, and waits until it has ended. nginx
// goes on.
func (b *Balancer) StopLbctl() { b.endLbctl(syscall.SIGTERM) }

// KillLbctl ends the daemon with SIGKILL. nginx goes on.
func (b *Balancer) KillLbctl() { b.endLbctl(syscall.SIGKILL) }

// PauseLbctl stops the daemon without ending it (SIGSTOP), until ContinueLbctl. It
// returns when all threads have stopped: some may go on for a moment after the signal.
func (b *Balancer) PauseLbctl() {
	b.t.Helper()
	b.lbctl.Process.Signal(syscall.SIGSTOP)
	b.Eventually("lbctl has stopped", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", b.PID()))
		if err != nil {
			return err
		}
		for _, stat := range threads {
			text, err := os.ReadFile(stat)
			if err != nil {
				return err
			}
			// pid (name) state ...
			if state := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))[0]; state != "T" {
				return fmt.Errorf("%s: state %s", stat, state)
			}
		}
		return nil
	})
}

// ContinueLbctl lets a paused daemon go on.
func (b *Balancer) ContinueLbctl() { b.lbctl.Process.Signal(syscall.SIGCONT) }

// SetToken sets Consul's token for the daemons that are started from now on.
func (b *Balancer) SetToken(token string) { b.opts.Token = token }

func (b *Balancer) endLbctl(sig syscall.Signal) {
	if b.lbctl == nil {
		return
	}
	b.lbctl.Process.Signal(sig)
	select {
	case <-b.ended:
	case <-time.After(Patience):
		b.lbctl.Process.Kill()
		<-b.ended
		b.t.Errorf("lbctl did not end within %s of %s", Patience, sig)
	}
	b.lbctl = nil
}

// Log is the log of lbctl so far.
func (b *Balancer) Log() string {
	text, _ := os.ReadFile(b.log) // no log yet: nothing logged
	return string(text)
}

// Output is the standard output of lbctl so far.
func (b *Balancer) Output() string {
	text, _ := os.ReadFile(b.out) // no output yet
	return string(text)
}

// PID is lbctl's process id.
func (b *Balancer) PID() int { return b.lbctl.Process.Pid }

// StartNginx waits for a current generation, and starts nginx with it.
func (b *Balancer) StartNginx() {
	b.t.Helper()
	conf := filepath.Join(b.StateDir, "current", "nginx.conf")
	b.Eventually("there is a configuration for nginx", func() error {
		_, err := os.Stat(conf)
		return err
	})
	b.nginx = nginxtest.Start(b.t, b.opts.Nginx, conf, filepath.Join(b.StateDir, "run"))
}

// Nginx is the running nginx.
func (b *Balancer) Nginx() *nginxtest.Process { return b.nginx }

// Lbctl runs one command of lbctl, which talks to the daemon.
func (b *Balancer) Lbctl(args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(b.t), args...)
	cmd.Env = append(os.Environ(), "LBCTL_STATE_DIR="+b.StateDir, "NO_COLOR=1",
		"CONSUL_HTTP_ADDR="+b.opts.Consul, "CONSUL_HTTP_TOKEN="+b.opts.Token)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lbctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// Status asks the daemon for its status.
func (b *Balancer) Status() (controller.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, err := b.client()
	if err != nil {
		return controller.Status{}, err
	}
	return client.Status(ctx)
}

// Services asks the daemon for the services that it balances.
func (b *Balancer) Services() ([]admin.Service, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, err := b.client()
	if err != nil {
		return nil, err
	}
	return client.Services(ctx)
}

func (b *Balancer) client() (*admin.Client, error) {
	return admin.NewClient("unix://" + filepath.Join(b.StateDir, "run", "admin.sock"))
}

// WaitServing waits until nginx serves n instances of service, and no change of Consul's
// is pending. Other services may still have problems.
func (b *Balancer) WaitServing(service string, n int) {
	b.t.Helper()
	b.Eventually(fmt.Sprintf("%d instances of %s are served", n, service), func() error {
		services, err := b.Services()
		if err != nil {
			return err
		}
		found, all := 0, 0
		for _, s := range services {
			all += s.InRotation
			if s.Name == service {
				found = s.InRotation
			}
		}
		if found != n {
			return fmt.Errorf("services: %+v", services)
		}
		status, err := b.Status()
		if err != nil {
			return err
		}
		// nginx may not have fetched these instances yet.
		healthy := status.State == controller.Serving || status.State == controller.Degraded
		if !healthy || status.Pending != nil || status.Instances != all {
			return fmt.Errorf("state %q, %d of %d instances: %s", status.State, status.Instances, all, status.Summary)
		}
		return nil
	})
}

// Eventually waits until condition returns nil.
func (b *Balancer) Eventually(what string, condition func() error) {
	b.t.Helper()
	Eventually(b.t, what, condition)
}

// Eventually waits until condition returns nil. It fails the test if that takes longer
// than Patience.
func Eventually(t testing.TB, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: not within %s: %v", what, Patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var build struct {
	sync.Once
	path string
	err  error
}

// Binary is the path of lbctl. It builds lbctl once per test binary, from this checkout.
func Binary(t testing.TB) string {
	t.Helper()
	build.Do(func() {
		var dir string
		if dir, build.err = os.MkdirTemp("", "lbctl"); build.err != nil {
			return
		}
		build.path = filepath.Join(dir, "lbctl")
		if out, err := exec.Command("go", "build", "-o", build.path, "lbctl/cmd/lbctl").CombinedOutput(); err != nil {
			build.err = fmt.Errorf("build lbctl: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// RemoveBinary removes the program that Binary built. A TestMain calls it last.
func RemoveBinary() {
	if build.path != "" {
		os.RemoveAll(filepath.Dir(build.path))
	}
}
