package doctor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
)

func TestPorts(t *testing.T) {
	s := local(t, nil)
	fine(t, Examine(t.Context(), s), "ports")

	tcp, err := net.Listen("tcp", s.Config.Nginx.GRPCListen[0])
	require.NoError(t, err)
	defer tcp.Close()
	me := processName(os.Getpid())
	fires(t, Examine(t.Context(), s), "ports", Failed, "listener grpc "+tcp.Addr().String(), me, "for nginx")

	s = local(t, nil)
	udp, err := net.ListenPacket("udp", s.Config.Nginx.DNSListen)
	require.NoError(t, err)
	defer udp.Close()
	report := Examine(t.Context(), s)
	if strings.HasPrefix(newest(t).Version, "1.22.") {
		fine(t, report, "ports") // nobody asks
	} else {
		fires(t, report, "ports", Failed, "--dns-listen", me, "for lbctl")
	}

	s = local(t, nil)
	all, err := net.Listen("tcp6", "[::]:0")
	if err == nil {
		defer all.Close()
		_, port, _ := net.SplitHostPort(all.Addr().String())
		s.Config.Nginx.HTTPListen = render.Listen{":" + port}
		fires(t, Examine(t.Context(), s), "ports", Failed, "listener http :"+port, "[::]:"+port)
	}

	s = local(t, nil)
	s.Config.Admin = "192.0.2.1:9119"
	fires(t, Examine(t.Context(), s), "ports", Failed, "--admin 192.0.2.1:9119: this machine does not have the address")
}

// TestPortOfAService has a TCP service whose port another process has.
func TestPortOfAService(t *testing.T) {
	b := startBalancer(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	backend := lbtest.StartBackend(t, "redis")
	registration := backend.Registration("redis")
	registration.Tags, registration.Meta = nil, map[string]string{"lb-protocol": "tcp", "lb-port": port}
	require.NoError(t, b.consul.Client().Agent().ServiceRegister(registration))
	b.Eventually("lbctl knows it", func() error {
		services, err := b.Services()
		if err == nil && len(services) == 0 {
			err = fmt.Errorf("no service")
		}
		return err
	})
	fires(t, Examine(t.Context(), b.subject(t)), "ports", Failed, "service redis 127.0.0.1:"+port, processName(os.Getpid()))
}

func TestDirectories(t *testing.T) {
	s := local(t, nil)
	fine(t, Examine(t.Context(), s), "directories")
	fine(t, Examine(t.Context(), s), "generations")

	s.Config.StateDir = "/proc/lbctl"
	s.Config.RunDir = nginxtest.Dir(t)
	report := Examine(t.Context(), s)
	if os.Geteuid() != 0 {
		fires(t, report, "directories", Failed, "--state-dir /proc/lbctl", "may not write to /proc")
	}

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	s.Config.StateDir = file
	fires(t, Examine(t.Context(), s), "directories", Failed, file+" is no directory")

	s = local(t, nil)
	s.Config.RunDir = filepath.Join(s.Config.StateDir, strings.Repeat("long", 30))
	fires(t, Examine(t.Context(), s), "directories", Failed, "the path of the socket", "at most 107")
}

func TestFullDisk(t *testing.T) {
	dir := nginxtest.Dir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=40m,mode=755"); err != nil {
		t.Skipf("it needs a disk of its own: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := local(t, nil)
	s.Config.StateDir = dir
	fires(t, Examine(t.Context(), s), "directories", Warning, "--state-dir "+dir, "has 40 MiB left", "at least 256 MiB")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 30<<20), 0o600))
	fires(t, Examine(t.Context(), s), "directories", Failed, "has 10 MiB left")
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=400m,nr_inodes=100"))
	fires(t, Examine(t.Context(), s), "directories", Warning, "more files")
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	fires(t, Examine(t.Context(), s), "directories", Failed, "may not write to "+dir, "read-only")
}

// TestGenerations has a directory at the path of the pin, which lbctl moves aside, and then a
// rollback that nobody ends.
func TestGenerations(t *testing.T) {
	state := filepath.Join(nginxtest.Dir(t), "state")
	require.NoError(t, os.MkdirAll(filepath.Join(state, "frozen.json", "x"), 0o755))
	b := startIn(t, state)
	fires(t, Examine(t.Context(), b.subject(t)), "generations", Warning, "holds what no lbctl uses", "frozen.json.broken")

	backend := lbtest.StartBackend(t, "one")
	backend.Register(t, b.consul.Client(), "hello_server")
	b.WaitServing("hello_server", 1)
	_, err := b.Lbctl("rollback")
	require.NoError(t, err)
	s := b.subject(t)
	s.Now = func() time.Time { return time.Now().Add(49 * time.Hour) }
	fires(t, Examine(t.Context(), s), "generations", Warning, "has been pinned for 49 hours")
	fires(t, Examine(t.Context(), s), "status", Warning, "the state is frozen")

	// Without lbctl, nginx does not follow what is current.
	b.KillLbctl()
	link := filepath.Join(state, "current")
	target, err := os.Readlink(link)
	require.NoError(t, err)
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink(filepath.Join(filepath.Dir(target), "000002"), link))
	alone := s
	alone.Daemon = Daemon{Err: fmt.Errorf("no daemon answered")}
	report := Examine(t.Context(), alone)
	fires(t, report, "generations", Warning, "nginx serves generation 1, and 2 is current")
	fires(t, report, "generations", Warning, "has been pinned")
}

// TestReachable has an instance that Consul considers to be passing, and that nobody serves.
func TestReachable(t *testing.T) {
	b := startBalancer(t)
	one := lbtest.StartBackend(t, "one")
	one.Register(t, b.consul.Client(), "hello_server")
	dead := &api.AgentServiceRegistration{ID: "dead", Name: "hello_server", Tags: []string{"grpc_server"}, Address: "127.0.0.1", Port: nginxtest.FreePort(t)}
	require.NoError(t, b.consul.Client().Agent().ServiceRegister(dead))
	b.Eventually("lbctl has ejected it", func() error {
		services, err := b.Services()
		if err == nil && (len(services) != 1 || services[0].InRotation != 1 || services[0].Registered != 2) {
			err = fmt.Errorf("%+v", services)
		}
		return err
	})
	report := Examine(t.Context(), b.subject(t))
	fires(t, report, "reachable", Warning, "service hello_server: this machine can't reach 1 instance of 2", fmt.Sprintf("dead (127.0.0.1:%d)", dead.Port), "connection refused")

	one.Kill() // then lbctl ejects none
	b.Eventually("lbctl uses it nevertheless", func() error {
		services, err := b.Services()
		if err == nil && !strings.HasPrefix(services[0].Instances[0].Reason, stays) {
			err = fmt.Errorf("%+v", services)
		}
		return err
	})
	fires(t, Examine(t.Context(), b.subject(t)), "reachable", Warning, "service hello_server: this machine can't reach 1 instance of 2", stays)
}

func TestServices(t *testing.T) {
	b := startBalancer(t)
	require.NoError(t, b.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "mail", Meta: map[string]string{"lb-protocol": "smtp"}, Port: 25}))
	b.Eventually("lbctl knows it", func() error {
		services, err := b.Services()
		if err == nil && len(services) == 0 {
			err = fmt.Errorf("no service")
		}
		return err
	})
	fires(t, Examine(t.Context(), b.subject(t)), "services", Warning, "service mail", `lb-protocol "smtp"`)
}

func TestVersions(t *testing.T) {
	b := startBalancer(t)
	s := b.subject(t)
	fine(t, Examine(t.Context(), s), "version")
	s.Version = "1.2.4"
	fires(t, Examine(t.Context(), s), "version", Warning, "this lbctl is version 1.2.4")

	fine(t, Examine(t.Context(), s), "status")
	s.Daemon.Status.Problems = []render.Problem{{Subject: "service x", Message: "its own"}, {Subject: render.CredentialsSubject, Message: "the file is empty"}}
	report := Examine(t.Context(), s)
	fires(t, report, "status", Warning, "credentials: the file is empty")
	assert.Len(t, findings(report, "status"), 1)

	s.Daemon.PID = 0 // as seen from another machine
	report = Examine(t.Context(), s)
	for _, check := range Checks {
		if check.local {
			notExamined(t, report, check.Name, "on another machine")
		}
	}
	s.Daemon.Foreign = "it runs in a container"
	fires(t, Examine(t.Context(), s), "daemon", Warning, "its settings can't be read (it runs in a container)")
}

func TestVariables(t *testing.T) {
	s := local(t, nil)
	s.Known = []string{"LBCTL_WORKERS", "LBCTL_NGINX"}
	s.Environ = []string{"LBCTL_WORKERS=2", "PATH=/bin"}
	fine(t, Examine(t.Context(), s), "variables")
	s.Environ = append(s.Environ, "LBCTL_WORKRES=2", "LBCTL_QQ=1")
	report := Examine(t.Context(), s)
	fires(t, report, "variables", Warning, "LBCTL_WORKRES", "LBCTL_WORKERS")
	assert.Len(t, findings(report, "variables"), 2)
}
