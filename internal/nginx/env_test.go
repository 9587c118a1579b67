package nginx

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// env is an Instance with its own directories and port.
type env struct {
	*Instance
	binary     nginxtest.Binary
	state, run string
	port       int
}

func newEnv(t *testing.T, binary nginxtest.Binary, change ...func(*Options)) *env {
	t.Helper()
	dir := nginxtest.Dir(t)
	e := &env{binary: binary, state: filepath.Join(dir, "state"), run: filepath.Join(dir, "run"), port: nginxtest.FreePort(t)}
	e.reopen(t, change...)
	return e
}

// reopen makes a new Instance on the same directories, as a restart does.
func (e *env) reopen(t *testing.T, change ...func(*Options)) {
	t.Helper()
	opts := Options{StateDir: e.state, RunDir: e.run, Binary: e.binary.Path, VerifyTimeout: 20 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&opts)
	}
	var err error
	e.Instance, err = New(opts)
	require.NoError(t, err)
}

func (e *env) start(t *testing.T) *nginxtest.Process {
	t.Helper()
	return nginxtest.Start(t, e.binary, filepath.Join(e.state, "current", MainFile), e.run)
}

// files returns a configuration whose port answers with body. more goes into http{}.
func (e *env) files(body string, more ...string) map[string][]byte {
	var conf bytes.Buffer
	fmt.Fprintf(&conf, "pid %s/nginx.pid;\nerror_log %s/error.log notice;\nworker_processes 2;\n", e.run, e.run)
	if os.Geteuid() == 0 {
		fmt.Fprint(&conf, "user root;\n")
	}
	fmt.Fprintf(&conf, "events { worker_connections 64; }\nhttp {\n    include generation.conf;\n    include site.conf;\n    access_log off;\n")
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&conf, "    %s_temp_path %s/%s;\n", name, e.run, name)
	}
	for _, text := range more {
		fmt.Fprintf(&conf, "    %s\n", text)
	}
	fmt.Fprint(&conf, "}\n")
	site := fmt.Sprintf("server {\n    listen 127.0.0.1:%d;\n    location / { return 200 \"%s\"; }\n}\n", e.port, body)
	return map[string][]byte{MainFile: conf.Bytes(), "site.conf": []byte(site)}
}

func (e *env) apply(t *testing.T, body string) Generation {
	t.Helper()
	g, err := e.Apply(t.Context(), e.files(body), Note{Hash: body})
	require.NoError(t, err)
	return g
}

// get sends a request to the port over a new connection.
func (e *env) get() (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", e.port))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// traffic sends requests until the returned function is called. That function returns their
// number, and fails the test if one had no answer.
func (e *env) traffic(t *testing.T) func() int64 {
	t.Helper()
	var asked atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := e.get(); err != nil {
				done <- err
				return
			}
			asked.Add(1)
		}
		done <- nil
	}()
	t.Cleanup(stop)
	return func() int64 {
		t.Helper()
		stop()
		require.NoError(t, <-done, "every request has an answer")
		return asked.Load()
	}
}

// requireServing checks that the disk, nginx and the answers have the same generation. Old
// workers may answer for a moment after a reload.
func (e *env) requireServing(t *testing.T, number int, body string) {
	t.Helper()
	current, err := e.Current()
	require.NoError(t, err)
	require.Equal(t, number, current.Number, "current")
	require.Eventually(t, func() bool {
		for range 5 {
			n, err := e.Serving(t.Context())
			answer, getErr := e.get()
			if err != nil || getErr != nil || n != number || answer != body {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond, "nginx must serve generation %d", number)
}

// requireClean checks that no temporary files are left.
func (e *env) requireClean(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{e.state + "/.*", e.store.generations() + "/.*", e.run + "/test-*"} {
		left, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}
