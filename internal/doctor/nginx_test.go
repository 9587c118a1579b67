package doctor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestBinary(t *testing.T) {
	s := local(t, nil)
	s.Config.Nginx.Binary = filepath.Join(t.TempDir(), "nginx")
	report := Examine(t.Context(), s)
	fires(t, report, "nginx-binary", Failed, s.Config.Nginx.Binary)
	notExamined(t, report, "nginx-version", "can't be run")
	notExamined(t, report, "nginx-modules", "can't be run")

	all := nginxtest.Binaries(t)
	if len(all) < 2 {
		t.Skip("it needs two versions of nginx")
	}
	s = local(t, nil)
	s.Daemon = Daemon{PID: os.Getpid(), Status: &controller.Status{Nginx: controller.Nginx{Version: all[0].Version}}}
	fires(t, Examine(t.Context(), s), "nginx-binary", Warning, all[0].Version, all[1].Version)
}

func TestVersion(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := local(t, nil)
		s.Config.Nginx.Binary = binary.Path
		report := Examine(t.Context(), s)
		fine(t, report, "nginx-binary")
		if strings.HasPrefix(binary.Version, "1.22.") {
			fires(t, report, "nginx-version", Warning, "one worker", "needs a reload", "1.27.3 or later")
			return
		}
		fine(t, report, "nginx-version")
	})
}

func TestModules(t *testing.T) {
	binary := newest(t)
	s := local(t, nil)
	s.Config.Nginx.Binary = binary.Path
	fine(t, Examine(t.Context(), s), "nginx-modules")

	// As after the installation of nginx without its package for stream.
	alone := filepath.Join(t.TempDir(), "nginx")
	content, err := os.ReadFile(binary.Path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(alone, content, 0o755))
	s.Config.Nginx.Binary = alone
	if report := Examine(t.Context(), s); len(findings(report, "nginx-modules")) == 1 && findings(report, "nginx-modules")[0].State != OK {
		fires(t, report, "nginx-modules", Warning, "stream (TCP services)")
	} else {
		t.Log("its stream module is where nginx itself looks for it")
	}

	// No nginx here is built without HTTP/2: this one says of itself that it is.
	less := filepath.Join(t.TempDir(), "nginx")
	script := fmt.Sprintf("#!/bin/sh\n%s \"$@\" 2>&1 | sed 's/--with-http_v2_module//; s/--with-http_realip_module//' >&2\n", binary.Path)
	require.NoError(t, os.WriteFile(less, []byte(script), 0o755))
	s.Config.Nginx.Binary = less
	fires(t, Examine(t.Context(), s), "nginx-modules", Failed, "http_v2 (gRPC)", "http_realip")
}

func TestLimits(t *testing.T) {
	s := local(t, nil)
	fine(t, Examine(t.Context(), s), "nginx-limits")
	s.Config.Nginx.OpenFiles = 1024
	fires(t, Examine(t.Context(), s), "nginx-limits", Warning, "--open-files is 1024", "at least 4096")
	s.Config.Nginx.User = "nobody-at-all"
	if os.Geteuid() == 0 {
		fires(t, Examine(t.Context(), s), "nginx-limits", Failed, "nobody-at-all")
	}
}

func TestFullWorkers(t *testing.T) {
	b := startBalancer(t, "--open-files", "160", "--workers", "1")
	s := b.subject(t)
	s.Config.Nginx.OpenFiles = fewFiles // only so that the check looks further
	fine(t, Examine(t.Context(), s), "nginx-limits")
	for range 74 {
		conn, err := net.Dial("tcp", b.HTTP)
		require.NoError(t, err)
		defer conn.Close()
	}
	b.Eventually("the worker has accepted them", func() error {
		if report := Examine(t.Context(), s); findings(report, "nginx-limits")[0].State == OK {
			return fmt.Errorf("%+v", findings(report, "nginx-limits"))
		}
		return nil
	})
	fires(t, Examine(t.Context(), s), "nginx-limits", Warning, "worker_connections is")
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives nginx's workers another user")
	}
	s := local(t, nil)
	s.Config.StateDir = nginxtest.Dir(t)
	fine(t, Examine(t.Context(), s), "nginx-user")
	require.NoError(t, os.Chmod(s.Config.StateDir, 0o700))
	fires(t, Examine(t.Context(), s), "nginx-user", Failed, s.Config.StateDir+" is closed for it")
}

// TestStopped examines a balancer whose nginx ends, and then lbctl, and one that hangs.
func TestStopped(t *testing.T) {
	b := startBalancer(t)
	s := b.subject(t)
	fine(t, Examine(t.Context(), s), "nginx-running")

	b.Nginx().KillMaster()
	report := Examine(t.Context(), b.subject(t))
	fires(t, report, "nginx-running", Failed, "its workers go on")
	fires(t, report, "status", Failed, "its master process is gone")

	b.Nginx().Stop()
	report = Examine(t.Context(), b.subject(t))
	fires(t, report, "nginx-running", Failed, "nginx does not run")
	fires(t, report, "status", Failed, "the state is down")
	notExamined(t, report, "nginx-old-workers", "does not run")

	b.PauseLbctl()
	report = Examine(t.Context(), s) // as found out before it stopped
	fires(t, report, "dns", Failed, "lbctl does not answer at "+b.DNS())
	hangs := b.subject(t)
	report = Examine(t.Context(), hangs)
	fires(t, report, "daemon", Failed, "its API does not answer")
	notExamined(t, report, "dns", "no daemon")
	b.ContinueLbctl()

	b.KillLbctl()
	gone := s
	gone.Daemon = Daemon{Err: hangs.Daemon.Err}
	report = Examine(t.Context(), gone)
	fires(t, report, "daemon", Warning)
	notExamined(t, report, "status", "no daemon")
	notExamined(t, report, "services", "no daemon")
}

// TestOldWorkers holds a stream over a change of routes.
func TestOldWorkers(t *testing.T) {
	b := startBalancer(t)
	one := lbtest.StartBackend(t, "one")
	one.Register(t, b.consul.Client(), "hello_server")
	b.WaitServing("hello_server", 1)
	fine(t, Examine(t.Context(), b.subject(t)), "nginx-old-workers")
	streams := lbtest.StartStreams(t, b.GRPC, 1, 50*time.Millisecond)
	other := lbtest.StartBackend(t, "other")
	registration := other.Registration("other")
	registration.Meta = map[string]string{"lb-protocol": "grpc", "lb-host": "other.example.com"}
	registration.Tags = nil
	require.NoError(t, b.consul.Client().Agent().ServiceRegister(registration))
	b.WaitServing("other", 1)
	b.Eventually("there is an old worker", func() error {
		status, err := b.Status()
		if err == nil && status.Nginx.OldWorkers == 0 {
			err = fmt.Errorf("status: %+v", status.Nginx)
		}
		return err
	})
	s := b.subject(t)
	fine(t, Examine(t.Context(), s), "nginx-old-workers")
	s.OldWorkers = time.Nanosecond
	report := Examine(t.Context(), s)
	fires(t, report, "nginx-old-workers", Warning, "1 worker")
	assert.Contains(t, findings(report, "nginx-old-workers")[0].Mend, "kill -TERM ")
	assert.Empty(t, streams.Stop())
}

// TestNotAsked has an nginx with a template that names another resolver.
func TestNotAsked(t *testing.T) {
	b := startBalancer(t)
	s := b.subject(t)
	if !s.Daemon.answers() || s.Daemon.Status.Endpoints.By != "dns" {
		t.Skip("this nginx does not ask for servers")
	}
	s.Daemon.Status.Endpoints.Upstreams, s.Daemon.Status.Endpoints.Unfetched = 2, []string{"http-a", "http-b"}
	s.Now = func() time.Time { return time.Now().Add(time.Minute) }
	fires(t, Examine(t.Context(), s), "dns", Failed, "nginx has asked for none of 2 upstreams")
}
