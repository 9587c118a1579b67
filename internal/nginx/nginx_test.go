package nginx

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	binary := nginxtest.Binaries(t)[0]
	dir := nginxtest.Dir(t)
	fits := filepath.Join(dir, strings.Repeat("r", 107-len(dir)-len("//generation.sock")))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, c := range []struct {
		name string
		opts Options
		want string
	}{
		{"no directories", Options{}, "the state directory and the run directory must be given"},
		{"a run directory that is one byte too long", Options{StateDir: dir, RunDir: fits + "r"}, "at most 107 bytes, " + fits + "r/generation.sock has 108"},
		{"a binary that is not there", Options{StateDir: dir, RunDir: dir, Binary: dir + "/nginx"}, "find nginx: "},
		{"a binary that is not nginx", Options{StateDir: dir, RunDir: dir, Binary: "/bin/true"}, `run /bin/true -V: want a line like "nginx version: nginx/1.30.6", got ""`},
		{"a state directory that is a file", Options{StateDir: file, RunDir: dir}, "cannot write to disk: mkdir " + file},
		{"a run directory that is a file", Options{StateDir: dir, RunDir: file}, "create run directory: mkdir " + file},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.opts.Binary == "" {
				c.opts.Binary = binary.Path
			}
			_, err := New(c.opts)
			require.ErrorContains(t, err, c.want)
		})
	}

	// The longest allowed path works with nginx too.
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := &env{binary: binary, state: nginxtest.Dir(t), run: fits, port: nginxtest.FreePort(t)}
		e.reopen(t)
		e.apply1(t)
		e.start(t)
		e.requireServing(t, 1, "one")
	})
}

// Paths may have spaces, quotes and dollars.
func TestOddPaths(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		dir := nginxtest.Dir(t)
		e := &env{binary: binary, state: filepath.Join(dir, `it's "our" state; {dir}`), run: filepath.Join(dir, "run"), port: nginxtest.FreePort(t)}
		e.reopen(t)
		e.apply1(t)
		e.start(t)
		e.requireServing(t, 1, "one")
		_, err := e.Apply(t.Context(), e.files("two", "nonsense;"), Note{})
		assert.EqualError(t, err, `configuration refused: nginx -t: unknown directive "nonsense" in nginx.conf:`+fmt.Sprint(bytes.Count(e.files("two")[MainFile], []byte("\n"))))
		e.apply(t, "two")
		e.requireServing(t, 2, "two")
	})
}

func TestBuild(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		build := e.Build()
		assert.Equal(t, binary.Version, build.Version)
		found, err := readBuild(binary.Path, filepath.Join(e.run, "missing"))
		require.NoError(t, err)
		assert.Equal(t, build, found, "where the run directory can't be written")
		if build.StreamModule == NoStream {
			t.Skip("this nginx has no stream module")
		}
		files := e.files("one")
		stream := fmt.Sprintf("stream { server { listen 127.0.0.1:%d; return hello; } }\n", nginxtest.FreePort(t))
		load := ""
		if build.StreamModule != "" {
			load = fmt.Sprintf("load_module %s;\n", build.StreamModule)
		}
		files[MainFile] = []byte(load + string(files[MainFile]) + stream)
		require.NoError(t, e.Test(t.Context(), files))
	})
}

func TestConnections(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		_, err := e.Connections(t.Context())
		require.ErrorIs(t, err, ErrNotRunning)
		e.apply1(t)
		e.start(t)
		e.requireServing(t, 1, "one")
		before, err := e.Connections(t.Context())
		require.NoError(t, err)
		const more = 5
		for range more {
			_, err := e.Serving(t.Context())
			require.NoError(t, err)
		}
		after, err := e.Connections(t.Context())
		require.NoError(t, err)
		assert.Equal(t, before.Requests+more+1, after.Requests)
		assert.Equal(t, before.Accepted+more+1, after.Accepted)
		assert.Equal(t, after.Accepted, after.Handled)
		assert.Equal(t, int64(1), after.Writing, "the question")
		assert.Zero(t, after.Reading+after.Waiting)
		assert.Equal(t, int64(1), after.Active)
	})
}

func TestParseConnections(t *testing.T) {
	t.Parallel()
	got, err := parseConnections("Active connections: 291 \nserver accepts handled requests\n 16630948 16630947 31070465 \nReading: 6 Writing: 179 Waiting: 106 \n")
	require.NoError(t, err)
	assert.Equal(t, Connections{Active: 291, Reading: 6, Writing: 179, Waiting: 106, Accepted: 16630948, Handled: 16630947, Requests: 31070465}, got)
	_, err = parseConnections("<html>")
	require.ErrorContains(t, err, `read nginx's stub_status: `)
	require.ErrorContains(t, err, `got "<html>"`)
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		release, arrived := make(chan struct{}), make(chan struct{})
		backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(arrived)
			<-release
		}))
		defer backend.Close()
		e.apply1(t)
		process := e.start(t)
		port := nginxtest.FreePort(t)
		_, err := e.Apply(t.Context(), e.files("two", fmt.Sprintf("server { listen 127.0.0.1:%d; location / { proxy_pass %s; } }", port, backend.URL)), Note{})
		require.NoError(t, err)

		var before Processes
		require.Eventually(t, func() bool {
			before, err = e.Processes()
			return err == nil && len(before.Workers) == 2 && len(before.OldWorkers) == 0
		}, 20*time.Second, 10*time.Millisecond)
		assert.Equal(t, process.PID(), before.Master.PID)
		assert.WithinDuration(t, time.Now(), before.Master.Started, 5*time.Minute)
		assert.False(t, before.Workers[0].Started.Before(before.Master.Started))

		answered := make(chan error, 1)
		go func() {
			response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			if err == nil {
				response.Body.Close()
			}
			answered <- err
		}()
		<-arrived
		e.apply(t, "three")
		var after Processes
		require.Eventually(t, func() bool {
			after, err = e.Processes()
			return err == nil && len(after.Workers) == 2 && len(after.OldWorkers) == 1
		}, 20*time.Second, 10*time.Millisecond, "one old worker stays with its connection")
		old := after.OldWorkers[0]
		assert.True(t, Leaving(old.PID))
		assert.False(t, Leaving(after.Workers[0].PID))
		assert.False(t, Leaving(after.Master.PID))
		assert.True(t, slices.ContainsFunc(before.Workers, func(p Process) bool { return p.PID == old.PID && p.Started.Equal(old.Started) }))
		assert.Positive(t, old.Memory)
		assert.Less(t, old.Memory, int64(1<<30))
		assert.WithinDuration(t, time.Now(), old.Retired, 5*time.Minute)
		assert.Zero(t, after.Workers[0].Retired)
		again, err := e.Processes()
		require.NoError(t, err)
		assert.Equal(t, old.Retired, again.OldWorkers[0].Retired, "it is remembered")

		close(release)
		require.NoError(t, <-answered)
		require.Eventually(t, func() bool {
			after, err = e.Processes()
			return err == nil && len(after.OldWorkers) == 0
		}, 20*time.Second, 10*time.Millisecond)

		process.KillMaster()
		_, err = e.Processes()
		require.ErrorIs(t, err, ErrNotRunning, "the pid file of a killed master is out of date")
		require.NoError(t, os.WriteFile(e.pidPath(), fmt.Appendln(nil, os.Getpid()), 0o644))
		_, err = e.Processes()
		require.ErrorIs(t, err, ErrNotRunning, "a process that is not nginx gets no signal")
	})
}

func TestRotateLog(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		require.NoError(t, e.RotateLog(t.Context()))
		assert.NoFileExists(t, e.logPath()+".1", "a small one stays")

		e.logMax = 64 << 10
		private := func(path string) {
			t.Helper()
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(logMode), info.Mode(), "it has query strings of clients")
		}
		fill := func(text string) {
			file, err := os.OpenFile(e.logPath(), os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = file.WriteString(strings.Repeat(text+"\n", 1+int(e.logMax)/len(text)))
			require.NoError(t, err)
			require.NoError(t, file.Close())
		}
		fill("first")
		require.NoError(t, e.RotateLog(t.Context()))
		e.apply(t, "two")
		text, err := os.ReadFile(e.logPath())
		require.NoError(t, err)
		assert.Contains(t, string(text), "reconfiguring", "nginx writes to the new file")
		assert.NotContains(t, string(text), "first")
		private(e.logPath())

		fill("second")
		e.apply(t, "three")
		text, err = os.ReadFile(e.logPath() + ".1")
		require.NoError(t, err)
		assert.Contains(t, string(text), "second", "Apply rotates too")
		info, err := os.Stat(e.logPath())
		require.NoError(t, err)
		assert.Less(t, info.Size(), e.logMax)
		_, err = e.Apply(t.Context(), e.files("four", "limit_req_zone $server_name zone=z:1m rate=9r/s;"), Note{})
		require.NoError(t, err)
		_, err = e.Apply(t.Context(), e.files("five", "limit_req_zone $uri zone=z:1m rate=9r/s;"), Note{})
		assert.ErrorContains(t, err, `limit_req "z" uses`, "reasons are found in the new file")

		// An nginx that was started before lbctl made them.
		require.NoError(t, os.Chmod(e.logPath(), 0o644))
		require.NoError(t, os.Chmod(e.logPath()+".1", 0o644))
		_, err = New(e.opts)
		require.NoError(t, err)
		private(e.logPath())
		private(e.logPath() + ".1")
	})
}

// lbctl may not be allowed to signal nginx.
func TestApplyNotPermitted(t *testing.T) {
	t.Parallel()
	i := &Instance{}
	if os.Geteuid() == 0 {
		t.Skip("root may signal everybody")
	}
	failed := i.signalReload(1, nil)
	require.NotNil(t, failed)
	assert.Equal(t, fmt.Sprintf("tell nginx (process 1) to reload: %v", syscall.EPERM), failed.String())
}

// Concurrent calls run one after the other.
func TestApplyConcurrently(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		results := make(chan Generation, 4)
		for n := range 4 {
			go func() {
				g, err := e.Apply(t.Context(), e.files(fmt.Sprint(n)), Note{Hash: fmt.Sprint(n)})
				assert.NoError(t, err)
				results <- g
			}()
		}
		var last Generation
		for range 4 {
			if g := <-results; g.Number > last.Number {
				last = g
			}
		}
		assert.Equal(t, 5, last.Number)
		e.requireServing(t, 5, last.Hash)
	})
}
