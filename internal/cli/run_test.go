package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
	"lbctl/internal/testlog"
)

// running is a running daemon with the real Consul and the real nginx.
type running struct {
	t        *testing.T
	consul   *consultest.Server
	http     string // nginx's listener
	stateDir string
	environ  []string
	log      *testlog.Buffer
	end      func() int
}

// startDaemon runs lbctl run, and nginx once there is a configuration for it.
func startDaemon(t *testing.T, binary nginxtest.Binary) *running {
	t.Helper()
	r := &running{
		t:        t,
		consul:   consultest.Start(t),
		http:     freeAddress(t),
		stateDir: nginxtest.Dir(t),
		log:      new(testlog.Buffer),
	}
	t.Setenv("CONSUL_HTTP_ADDR", r.consul.Addr) // which Consul's own package reads
	r.environ = []string{
		"LBCTL_STATE_DIR=" + r.stateDir,
		"LBCTL_NGINX=" + binary.Path,
		"LBCTL_GRPC_LISTEN=" + freeAddress(t),
		"LBCTL_HTTP_LISTEN=" + r.http,
		"LBCTL_ADMIN=" + freeAddress(t),
		"LBCTL_DNS_LISTEN=" + freeAddress(t),
		"LBCTL_OPEN_FILES=1024",
		"LBCTL_WORKRES=2",
	}
	ctx, cancel := context.WithCancel(context.Background())
	codes := make(chan int, 1)
	go func() {
		codes <- Main(ctx, System{Args: []string{"run", "--workers", "1"}, Out: io.Discard, Err: r.log, Environ: r.environ, Now: time.Now})
	}()
	ended := false
	r.end = func() int {
		cancel()
		ended = true
		return <-codes
	}
	t.Cleanup(func() {
		if !ended {
			r.end()
		}
		testlog.Show(t, "the daemon", r.log.String)
	})
	conf := filepath.Join(r.stateDir, "current", "nginx.conf")
	require.Eventually(t, func() bool { _, err := os.Stat(conf); return err == nil }, patience, often, "the first configuration")
	nginxtest.Start(t, binary, conf, filepath.Join(r.stateDir, "run"))
	return r
}

func freeAddress(t *testing.T) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
}

// lbctl runs a command beside the daemon.
func (r *running) lbctl(args ...string) result {
	r.t.Helper()
	return command(r.t.Context(), Terminal{}, r.environ, args...)
}

// register registers a new HTTP server as an instance of web.
func (r *running) register(id string) {
	r.t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, id) }))
	r.t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(r.t, err)
	number, err := strconv.Atoi(port)
	require.NoError(r.t, err)
	require.NoError(r.t, r.consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "web", Address: host, Port: number, Tags: []string{"http_server"},
	}))
}

// served returns nginx's answer.
func (r *running) served() string {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + r.http + "/")
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

func (r *running) status() (status controller.Status) {
	r.t.Helper()
	got := r.lbctl("status", "-o", "json")
	require.NoError(r.t, json.Unmarshal([]byte(got.out), &status), got.err)
	return status
}

func (r *running) await(state controller.State) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.status().State == state }, patience, often, state)
}

func TestDaemon(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		r := startDaemon(t, binary)

		got := r.lbctl("status", "--wait", "30s")
		require.Equal(t, exitOK, got.code, got.out+got.err)
		assert.Contains(t, got.out, "which is what Consul says")
		assert.Equal(t, result{code: exitOK}, r.lbctl("status", "--ready"))
		assert.Contains(t, r.log.String(), "LBCTL_WORKRES", "a mistyped variable is reported")

		r.register("one")
		require.Eventually(t, func() bool { return r.served() == "one" }, patience, often)
		require.Equal(t, exitOK, r.lbctl("status", "--wait", "30s").code)
		got = r.lbctl("services")
		assert.Regexp(t, `web +http +default +fresh +1/1`, got.out)
		got = r.lbctl("services", "web")
		assert.Regexp(t, `one +\S+ +127.0.0.1:\d+ +passing +1 +- +yes`, got.out)
		got = r.lbctl("diff")
		assert.Contains(t, got.out, "+upstream http-web {")
		got = r.lbctl("history")
		assert.Regexp(t, `\d+ +\S+, \d+s ago +applied +\S+ +new service web \+1`, got.out)
		r.completes()

		second := r.lbctl("run")
		assert.Equal(t, exitFailure, second.code)
		assert.Contains(t, second.err, "another 'lbctl run' uses this directory: process "+strconv.Itoa(os.Getpid()))
		second = r.lbctl("run", "--run-dir", filepath.Join(nginxtest.Dir(t), "other"))
		assert.Equal(t, exitFailure, second.code)
		assert.Contains(t, second.err, filepath.Join(r.stateDir, "lock"))

		got = r.lbctl("render")
		assert.Equal(t, exitOK, got.code, got.err)
		assert.True(t, strings.HasPrefix(got.out, "# configuration file nginx.conf:\n"), got.out)
		assert.Contains(t, got.out, "upstream http-web {")
		workers, _ := render.DefaultWorkers(binary.Version)
		assert.Contains(t, got.out, fmt.Sprintf("worker_processes %d;", workers), "--workers is not set")
		out := filepath.Join(t.TempDir(), "new", "conf")
		got = r.lbctl("render", "--out", out)
		assert.Equal(t, exitOK, got.code, got.err)
		assert.Empty(t, got.out)
		assert.FileExists(t, filepath.Join(out, "nginx.conf"))
		current, err := os.ReadFile(filepath.Join(r.stateDir, "current", "http.conf"))
		require.NoError(t, err)
		rendered, err := os.ReadFile(filepath.Join(out, "http.conf"))
		require.NoError(t, err)
		assert.Equal(t, string(current), string(rendered), "render is what the daemon gives to nginx")

		assert.Empty(t, r.status().Nginx.WorkersReason, "--workers says how many")

		good := r.status().Nginx.Generation
		got = r.lbctl("rollback", "--wait", "30s")
		require.Equal(t, exitOK, got.code, got.err)
		assert.Contains(t, got.out, "lbctl resume")
		assert.NotEqual(t, "one", r.served())
		r.await(controller.Frozen)
		assert.Less(t, r.status().Nginx.Generation, good)
		assert.Equal(t, exitProblem, r.lbctl("status", "--wait", "30s").code, "waiting while frozen")

		got = r.lbctl("resume", "--wait", "30s")
		require.Equal(t, exitOK, got.code, got.err)
		assert.Equal(t, "one", r.served(), "the command has waited")
		assert.Equal(t, "No instance is held.\n", r.lbctl("accept").out)

		require.NoError(t, r.consul.Client().Agent().ServiceDeregister("one"))
		require.Eventually(t, func() bool { return strings.Contains(r.lbctl("services", "web").out, "held since") }, patience, often)
		assert.Equal(t, "one", r.served())
		got = r.lbctl("accept", "web", "--wait", "30s")
		require.Equal(t, exitOK, got.code, got.err)
		assert.Equal(t, "Removed 1 held instance that Consul no longer lists.\n", got.out)
		assert.NotEqual(t, "one", r.served(), "the command has waited")
		r.register("two")
		require.Eventually(t, func() bool { return r.served() == "two" }, patience, often)

		assert.Equal(t, exitOK, r.end(), "SIGTERM is how a daemon ends")
		assert.Contains(t, r.log.String(), "nginx keeps serving")
		assert.Equal(t, "two", r.served(), "nginx goes on")
		assert.Equal(t, exitUnreachable, r.lbctl("status").code)
	})
}

func TestRunThatCannotStart(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	binary := nginxtest.Binaries(t)[0]
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"without nginx":                 {[]string{"--nginx", "/nowhere/nginx"}, "find nginx"},
		"with a port that is taken":     {[]string{"--admin", taken.Addr().String()}, "another process uses the port; choose another one with --admin"},
		"in a place that is a file":     {[]string{"--state-dir", file}, "--state-dir"},
		"with a run directory too long": {[]string{"--run-dir", filepath.Join(t.TempDir(), strings.Repeat("x", 100))}, "choose a shorter one"},
		"with a user that is not there": {[]string{"--nginx-user", "nobody-knows-me"}, "--nginx-user"},
	} {
		if name == "with a user that is not there" && os.Geteuid() != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			args := append([]string{"run", "--state-dir", nginxtest.Dir(t), "--nginx", binary.Path, "--admin", "none"}, test.args...)
			got := command(t.Context(), Terminal{}, nil, args...)
			assert.Equal(t, exitFailure, got.code)
			assert.Contains(t, got.err, test.want)
			assert.Equal(t, 1, strings.Count(got.err, "\n"), "one line: %s", got.err)
		})
	}
}

// TestRunBeforeNginx starts the daemon before nginx. That is no failure: the log must say neither
// that nginx fails nor that it keeps serving.
func TestRunBeforeNginx(t *testing.T) {
	consul, binary, stateDir := consultest.Start(t), nginxtest.Binaries(t)[0], nginxtest.Dir(t)
	t.Setenv("CONSUL_HTTP_ADDR", consul.Addr)
	ctx, cancel := context.WithCancel(t.Context())
	log := new(testlog.Buffer)
	codes := make(chan int, 1)
	go func() {
		codes <- Main(ctx, System{Out: io.Discard, Err: log, Now: time.Now, Args: []string{
			"run", "--state-dir", stateDir, "--nginx", binary.Path, "--admin", "none", "--verify-timeout", "3s",
			"--grpc-listen", freeAddress(t), "--http-listen", freeAddress(t), "--dns-listen", freeAddress(t)}})
	}()
	require.Eventually(t, seen(log, `msg="nginx is not running: the generation waits for its start" generation=1`), patience, often)
	assert.NotContains(t, log.String(), "level=WARN msg=nginx", "before nginx had any time to start")
	require.Eventually(t, seen(log, `reason="generation 1 waits for nginx to start: nginx does not answer: `), patience, often)
	assert.Regexp(t, `level=WARN msg="nginx does not answer" generation=1 for=3`, log.String())
	cancel()
	assert.Equal(t, exitOK, <-codes)
	assert.Contains(t, log.String(), `msg="lbctl ends; nginx is not running"`)
	assert.NotContains(t, log.String(), "keeps serving")
}

// Nobody says how many workers nginx has: the log and status tell why they are few.
func TestLogFormat(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	for _, binary := range nginxtest.Binaries(t) {
		t.Run(binary.Version, func(t *testing.T) { testLogFormat(t, binary) })
	}
}

func testLogFormat(t *testing.T, binary nginxtest.Binary) {
	stateDir := nginxtest.Dir(t)
	ctx, cancel := context.WithCancel(t.Context())
	log := new(testlog.Buffer)
	codes := make(chan int, 1)
	go func() {
		codes <- Main(ctx, System{Out: io.Discard, Err: log, Now: time.Now, Args: []string{
			"run", "--state-dir", stateDir, "--nginx", binary.Path, "--admin", "none", "--log-format", "json"}})
	}()
	require.Eventually(t, seen(log, `"msg":"lbctl starts"`), patience, often)
	_, fewWorkers := render.DefaultWorkers(binary.Version)
	assert.Equal(t, fewWorkers != "", strings.Contains(log.String(), fmt.Sprintf(`"few_workers":%q`, fewWorkers)))
	assert.NotContains(t, log.String(), `:""`, "no attribute is empty")
	require.Eventually(t, func() bool {
		var status controller.Status
		got := command(t.Context(), Terminal{}, nil, "status", "-o", "json", "--state-dir", stateDir)
		return json.Unmarshal([]byte(got.out), &status) == nil && status.Nginx.WorkersReason == fewWorkers
	}, patience, often, fewWorkers)
	cancel()
	assert.Equal(t, exitOK, <-codes)
	for line := range strings.Lines(log.String()) {
		assert.True(t, json.Valid([]byte(line)), line)
	}
}

// TestPasswordOfConsul has the password in Consul's address, as Consul's own commands accept it.
// No text of lbctl may contain it.
func TestPasswordOfConsul(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "http://operator:hunter2@127.0.0.1:1")
	binary, stateDir := nginxtest.Binaries(t)[0], nginxtest.Dir(t)
	ctx, cancel := context.WithCancel(t.Context())
	log, web := new(testlog.Buffer), freeAddress(t)
	codes := make(chan int, 1)
	go func() {
		codes <- Main(ctx, System{Out: io.Discard, Err: log, Now: time.Now, Args: []string{
			"run", "--state-dir", stateDir, "--nginx", binary.Path, "--admin", web, "--dns-listen", freeAddress(t), "--log-level", "debug"}})
	}()
	said := func(args ...string) string {
		got := command(t.Context(), Terminal{}, nil, append(args, "--state-dir", stateDir)...)
		return got.out + got.err
	}
	require.Eventually(t, func() bool { return strings.Contains(said("status"), "does not answer") }, patience, often)
	response, err := http.Get("http://" + web + "/v1/status")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	for _, text := range []string{string(body), said("status"), said("status", "-o", "json"), said("history"), said("render", "--nginx", binary.Path, "--timeout", "1s")} {
		assert.NotContains(t, text, "hunter2")
	}
	cancel()
	assert.Equal(t, exitOK, <-codes, log)
	assert.NotContains(t, log.String(), "hunter2")
}
