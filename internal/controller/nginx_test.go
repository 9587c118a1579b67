package controller

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/history"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
)

// real is a controller with a real nginx.
type real struct {
	*testing.T
	binary nginxtest.Binary
	dir    string
	port   int
	source *fakeSource
	c      *Controller
	end    func()
}

func startReal(t *testing.T, binary nginxtest.Binary) *real {
	r := &real{T: t, binary: binary, dir: nginxtest.Dir(t), port: nginxtest.FreePort(t), source: newFakeSource()}
	r.run()
	t.Cleanup(func() { r.end() })
	return r
}

func (r *real) runDir() string { return filepath.Join(r.dir, "run") }

func (r *real) run() {
	server, err := nginx.New(nginx.Options{StateDir: r.dir, RunDir: r.runDir(), Binary: r.binary.Path})
	require.NoError(r, err)
	r.c = New(Options{StateDir: r.dir, CheckEvery: 200 * time.Millisecond, RetryMin: 300 * time.Millisecond}, r.source, server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.c.Run(ctx) }()
	r.end = func() {
		cancel()
		require.NoError(r, <-done)
		r.end = func() {}
	}
}

func (r *real) nginx() *nginxtest.Process {
	conf := filepath.Join(r.dir, "current", "nginx.conf")
	r.eventually("a configuration to start with", func() bool { _, err := os.Stat(conf); return err == nil })
	return nginxtest.Start(r, r.binary, conf, r.runDir())
}

// say delivers a configuration that answers with text on the test's port, and listens on
// others.
func (r *real) say(text string, others ...int) {
	var listen strings.Builder
	for _, port := range append(others, r.port) {
		fmt.Fprintf(&listen, "listen 127.0.0.1:%d; ", port)
	}
	conf := fmt.Sprintf("pid %s/nginx.pid;\nevents {}\nhttp {\n  include generation.conf;\n  access_log off;\n"+
		"  server { %s location / { return 200 %q; } }\n}\n", r.runDir(), listen.String(), text)
	r.sayConf(text, conf)
}

func (r *real) sayConf(hash, conf string) {
	r.source.updates <- render.Configuration{Hash: hash, Files: map[string][]byte{"nginx.conf": []byte(conf)}}
}

func (r *real) served() string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", r.port))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func (r *real) status() Status { return r.c.Status(r.Context()) }

func (r *real) eventually(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("waited 30 s for %s; status: %+v", what, r.status())
		}
	}
}

func (r *real) becomes(state State, text string) {
	r.Helper()
	r.eventually(fmt.Sprintf("state %s with %q", state, text), func() bool { return r.status().State == state })
	r.eventually(fmt.Sprintf("%q", text), func() bool { return r.served() == text })
}

func (r *real) last(kind history.Kind) {
	r.Helper()
	r.eventually(fmt.Sprintf("%s as the last event", kind), func() bool {
		h := r.c.History()
		return len(h) > 0 && h[0].Kind == kind
	})
}

func TestWithRealNginx(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		t.Parallel()
		r := startReal(t, binary)
		r.say("one")
		process := r.nginx()
		r.becomes(Serving, "one")
		assert.Equal(t, process.PID(), r.status().Nginx.PID)
		assert.Equal(t, binary.Version, r.status().Nginx.Version)

		r.say("two")
		r.becomes(Serving, "two")

		// nginx -t refuses it.
		r.sayConf("bad", strings.Replace(mainFile(t, r), "location", "locution", 1))
		r.becomes(Degraded, "two")
		assert.Contains(t, r.status().Summary, `unknown directive "locution"`)
		r.say("three")
		r.becomes(Serving, "three")

		// nginx -t accepts it, but the reload fails while the port is in use.
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		r.say("four", taken.Addr().(*net.TCPAddr).Port)
		r.becomes(Degraded, "three")
		assert.Contains(t, r.status().Summary, "bind() to 127.0.0.1")
		require.NoError(t, taken.Close())
		r.becomes(Serving, "four")

		// An operator rolls back, over a restart.
		_, err = r.c.Rollback(t.Context(), 1)
		require.NoError(t, err)
		r.becomes(Frozen, "one")
		r.end()
		r.source = newFakeSource()
		r.run()
		r.say("five")
		r.becomes(Frozen, "one")
		require.NoError(t, r.c.Resume(t.Context()))
		r.becomes(Serving, "five")

		// Files are edited, and nginx has loaded them.
		link, err := filepath.EvalSymlinks(filepath.Join(r.dir, "current", "nginx.conf"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(link, []byte(strings.Replace(mainFile(t, r), "five", "hacked", 1)), 0o644))
		r.last(history.Drift)
		r.becomes(Serving, "five")

		// nginx stops and starts again.
		process.Stop()
		r.becomes(Down, r.served())
		r.last(history.NginxDown)
		r.nginx()
		r.becomes(Serving, "five")
		r.last(history.NginxUp)
	})
}

func mainFile(t *testing.T, r *real) string {
	b, err := os.ReadFile(filepath.Join(r.dir, "current", "nginx.conf"))
	require.NoError(t, err)
	return string(b)
}

// TestStatusSaysThatTheMasterIsGone kills nginx's master process: its workers go on.
func TestStatusSaysThatTheMasterIsGone(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		r := startReal(t, binary)
		r.say("one")
		process := r.nginx()
		r.becomes(Serving, "one")
		process.KillMaster()
		r.becomes(Degraded, "one")
		s := r.status()
		assert.Equal(t, "nginx serves generation 1, but "+masterGone, s.Summary)
		assert.Contains(t, s.Problems, render.Problem{Subject: "nginx", Message: masterGone})
		assert.False(t, s.Nginx.Running)
		r.last(history.MasterGone)

		// A plain supervisor starts nginx, and does not know of the workers that are left.
		next := exec.Command(binary.Path, "-e", filepath.Join(r.runDir(), "error.log"), "-c", filepath.Join(r.dir, "current", "nginx.conf"), "-g", "daemon off;")
		require.NoError(t, next.Start())
		t.Cleanup(func() {
			next.Process.Signal(syscall.SIGTERM)
			next.Wait()
		})
		r.becomes(Serving, "one")
		assert.Equal(t, next.Process.Pid, r.status().Nginx.PID)
		assert.Empty(t, r.status().Problems)
		r.eventually("the master in the history", func() bool {
			return slices.ContainsFunc(r.c.History(), func(e history.Event) bool { return e.Kind == history.MasterBack })
		})
	})
}
