package nginx

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

func TestApply(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		current, err := e.Current()
		require.NoError(t, err)
		require.Zero(t, current, "there is no generation yet")

		// Apply waits for nginx, which its supervisor starts once there is a configuration.
		done := make(chan error, 1)
		var first Generation
		go func() {
			var err error
			first, err = e.Apply(context.Background(), e.files("one"), Note{Hash: "h1", Reason: "start", Services: 1, Instances: 2, Change: "+2 -0 instances: one"})
			done <- err
		}()
		require.Eventually(t, func() bool { current, err := e.Current(); return err == nil && current.Number == 1 }, 20*time.Second, 5*time.Millisecond)
		e.start(t)
		require.NoError(t, <-done)
		e.requireServing(t, 1, "one")
		assert.Equal(t, "h1", first.Hash)
		assert.False(t, first.Served.IsZero())

		stop := e.traffic(t)
		for n := 2; n <= 5; n++ {
			g := e.apply(t, fmt.Sprintf("body %d", n))
			require.Equal(t, n, g.Number)
			e.requireServing(t, n, fmt.Sprintf("body %d", n))
		}
		assert.Positive(t, stop())

		generations, err := e.Generations()
		require.NoError(t, err)
		require.Len(t, generations, 5)
		assert.Equal(t, 5, generations[0].Number, "the newest is first")
		assert.WithinDuration(t, first.Served, generations[4].Served, 0)
		assert.Equal(t, first.Note, generations[4].Note)
		files, err := e.Files(1)
		require.NoError(t, err)
		assert.Equal(t, e.files("one"), files, "a generation returns its files")
		_, err = e.Files(99)
		assert.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestApplyWithoutNginx(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary, func(o *Options) { o.VerifyTimeout = 100 * time.Millisecond })
		g, err := e.Apply(t.Context(), e.files("one"), Note{})
		require.ErrorIs(t, err, ErrNotRunning)
		assert.Equal(t, fmt.Sprintf("generation 1 waits for nginx to start: nginx does not answer: %s/nginx.pid does not name a running nginx", e.run), err.Error())
		assert.Equal(t, 1, g.Number)
		_, err = e.Serving(t.Context())
		require.ErrorIs(t, err, ErrNotRunning)
		_, err = e.Processes()
		require.ErrorIs(t, err, ErrNotRunning)

		e.start(t)
		e.requireServing(t, 1, "one")
		g, err = e.Activate(t.Context(), 1)
		require.NoError(t, err)
		assert.False(t, g.Served.IsZero(), "the first time that nginx serves it is noted")
	})
}

// A pid file of a killed nginx or of another process does not count as a running nginx.
func TestApplyAfterKill(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		e.apply1(t)
		process := e.start(t)
		e.requireServing(t, 1, "one")
		process.KillMaster()

		done := make(chan error, 1)
		go func() {
			_, err := e.Apply(context.Background(), e.files("two"), Note{})
			done <- err
		}()
		require.Eventually(t, func() bool { current, err := e.Current(); return err == nil && current.Number == 2 }, 20*time.Second, 5*time.Millisecond)
		e.start(t)
		require.NoError(t, <-done)
		e.requireServing(t, 2, "two")
	})
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// apply1 stores the first generation. nginx is started afterwards.
func (e *env) apply1(t *testing.T) {
	t.Helper()
	timeout := e.opts.VerifyTimeout
	e.opts.VerifyTimeout = time.Millisecond
	defer func() { e.opts.VerifyTimeout = timeout }()
	_, err := e.Apply(t.Context(), e.files("one"), Note{Hash: "one"})
	require.ErrorIs(t, err, ErrNotRunning)
}

// started returns an env whose nginx serves generation 1.
func started(t *testing.T, binary nginxtest.Binary, change ...func(*Options)) *env {
	t.Helper()
	e := newEnv(t, binary, change...)
	e.apply1(t)
	e.start(t)
	e.requireServing(t, 1, "one")
	_, err := e.Activate(t.Context(), 1)
	require.NoError(t, err)
	return e
}

func TestApplyRejected(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		log, err := os.ReadFile(e.logPath())
		require.NoError(t, err)
		files := e.files("two")
		files["site.conf"] = append(files["site.conf"], "server {\n    no_such_thing on;\n}\n"...)
		g, err := e.Apply(t.Context(), files, Note{})
		require.ErrorIs(t, err, ErrRejected)
		assert.Equal(t, `configuration refused: nginx -t: unknown directive "no_such_thing" in site.conf:6`, err.Error())
		assert.Zero(t, g)
		e.requireServing(t, 1, "one")

		files = e.files("two", "upstream empty { }")
		_, err = e.Apply(t.Context(), files, Note{})
		assert.ErrorIs(t, err, ErrRejected)
		assert.ErrorContains(t, err, "nginx -t: no servers are inside upstream in nginx.conf:")

		files = e.files("two")
		delete(files, "site.conf")
		_, err = e.Apply(t.Context(), files, Note{})
		assert.ErrorContains(t, err, `configuration refused: nginx -t: open() "site.conf" failed (2: No such file or directory) in nginx.conf:`)

		require.NoError(t, e.Test(t.Context(), e.files("two")))
		require.ErrorIs(t, e.Test(t.Context(), map[string][]byte{MainFile: nil}), ErrRejected)
		after, err := os.ReadFile(e.logPath())
		require.NoError(t, err)
		assert.Equal(t, string(log), string(after), "a test writes nothing to the error log of the running nginx")
		e.requireServing(t, 1, "one")
		e.requireClean(t)

		assert.Equal(t, 2, e.apply(t, "three").Number, "a refused configuration uses no number")
		e.requireServing(t, 2, "three")
	})
}

// A configuration that passes nginx -t may still fail at the reload.
func TestApplyPortTaken(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()
		stop := e.traffic(t)
		before, err := e.Processes()
		require.NoError(t, err)

		bad := e.files("two", fmt.Sprintf("server { listen %s; }", taken.Addr()))
		g, err := e.Apply(t.Context(), bad, Note{})
		require.ErrorIs(t, err, ErrRolledBack)
		assert.EqualError(t, err, fmt.Sprintf("generation 2: rolled back to 1: bind() to %s failed (98: Address already in use)", taken.Addr()))
		assert.Equal(t, 2, g.Number)
		e.requireServing(t, 1, "one")
		after, err := e.Processes()
		require.NoError(t, err)
		assert.Equal(t, before, after, "an nginx that kept its generation is not reloaded")

		_, err = e.Apply(t.Context(), bad, Note{})
		require.ErrorIs(t, err, ErrRolledBack)
		assert.Equal(t, 4, e.apply(t, "three").Number)
		e.requireServing(t, 4, "three")
		assert.Positive(t, stop())

		generations, err := e.Generations()
		require.NoError(t, err)
		var numbers []int
		for _, g := range generations {
			numbers = append(numbers, g.Number)
		}
		assert.Equal(t, []int{4, 3, 1}, numbers, "one of those that were never served is kept")
	})
}

// A port that becomes free while nginx tries again is not a failure.
func TestApplyPortFreed(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()
		log := tailOf(e.logPath())
		go func() {
			for deadline := time.Now().Add(20 * time.Second); len(log.messages) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				log.read()
			}
			taken.Close()
		}()
		_, err = e.Apply(t.Context(), e.files("two", fmt.Sprintf("server { listen %s; }", taken.Addr())), Note{})
		require.NoError(t, err)
		e.requireServing(t, 2, "two")
	})
}

func TestApplyZoneKeyChanged(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		_, err := e.Apply(t.Context(), e.files("two", "limit_req_zone $binary_remote_addr zone=z:1m rate=9r/s;"), Note{})
		require.NoError(t, err)
		_, err = e.Apply(t.Context(), e.files("three", "limit_req_zone $server_name zone=z:1m rate=9r/s;"), Note{})
		require.EqualError(t, err, `generation 3: rolled back to 2: limit_req "z" uses the "$server_name" key while previously it used the "$binary_remote_addr" key`)
		e.requireServing(t, 2, "two")
		e.apply(t, "four")
		e.requireServing(t, 4, "four")
	})
}

// For a moment after a reload old workers answer too. Neither Serving nor the rollback of a
// change that follows at once may trust them.
func TestServingAfterReload(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		for n := 2; n <= 8; n++ {
			require.Equal(t, n, e.apply(t, "good").Number)
			serving, err := e.Serving(t.Context())
			require.NoError(t, err)
			require.Equal(t, n, serving)
		}
	})
}

func TestActivate(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		e.apply(t, "two")
		e.apply(t, "three")
		stop := e.traffic(t)
		g, err := e.Activate(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, "one", g.Hash)
		e.requireServing(t, 1, "one")
		_, err = e.Activate(t.Context(), 3)
		require.NoError(t, err)
		e.requireServing(t, 3, "three")

		before, err := e.Processes()
		require.NoError(t, err)
		_, err = e.Activate(t.Context(), 3)
		require.NoError(t, err)
		after, err := e.Processes()
		require.NoError(t, err)
		assert.Equal(t, before.Workers, after.Workers, "the served generation is not reloaded")

		_, err = e.Activate(t.Context(), 7)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, os.WriteFile(filepath.Join(e.store.path(2), "site.conf"), []byte("broken"), 0o644))
		_, err = e.Activate(t.Context(), 2)
		require.ErrorIs(t, err, ErrRejected)
		assert.EqualError(t, err, `generation 2: configuration refused: nginx -t: unexpected end of file, expecting ";" or "}" in site.conf:1`)
		e.requireServing(t, 3, "three")

		e.Activate(t.Context(), 1)
		assert.Equal(t, 4, e.apply(t, "four").Number, "numbers go on from the highest")
		e.requireServing(t, 4, "four")
		assert.Positive(t, stop())
	})
}

// nginx is down, and the new generation keeps it from starting. It starts with the former one.
func TestApplyKeepsNginxFromStarting(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		e.apply1(t)
		process := e.start(t)
		_, err := e.Activate(t.Context(), 1)
		require.NoError(t, err)
		process.Stop()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()

		type result struct {
			g   Generation
			err error
		}
		done := make(chan result, 1)
		go func() {
			g, err := e.Apply(context.Background(), e.files("two", fmt.Sprintf("server { listen %s; }", taken.Addr())), Note{})
			done <- result{g, err}
		}()
		current := func(n int) func() bool {
			return func() bool { g, err := e.Current(); return err == nil && g.Number == n }
		}
		require.Eventually(t, current(2), 20*time.Second, 5*time.Millisecond)
		output := nginxtest.StartFails(t, binary, filepath.Join(e.state, "current", MainFile), e.run)
		assert.Contains(t, output, "Address already in use")
		require.Eventually(t, current(1), 20*time.Second, 5*time.Millisecond)
		e.start(t)
		got := <-done
		require.EqualError(t, got.err, fmt.Sprintf("generation 2: rolled back to 1: bind() to %s failed (98: Address already in use)", taken.Addr()))
		assert.Equal(t, 2, got.g.Number)
		e.requireServing(t, 1, "one")
	})
}

// Both the new generation and the rollback fail.
func TestApplyDegraded(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary, func(o *Options) { o.VerifyTimeout = 300 * time.Millisecond })
		// Both generations answer with a number that is not theirs.
		conf := filepath.Join(e.store.path(1), GenerationFile)
		require.NoError(t, os.WriteFile(conf, e.generationConf(77, e.socketPath()), 0o644))
		bad := e.files("two")
		bad[MainFile] = []byte(string(bad[MainFile]) + "# include generation.conf;\n")
		bad["other.conf"] = e.generationConf(78, e.socketPath())
		bad[MainFile] = []byte(replaceOnce(string(bad[MainFile]), "include generation.conf;", "include other.conf;"))
		bad["unused.conf"] = []byte("include generation.conf;")
		_, err := e.Apply(t.Context(), bad, Note{})
		require.ErrorIs(t, err, ErrDegraded)
		assert.ErrorContains(t, err, "generation 2: not served, and the rollback failed: nginx serves generation 78, want 2, and ")
		assert.ErrorContains(t, err, "generation 1: nginx serves generation 77, want 1, and ")
		e.opts.VerifyTimeout = 20 * time.Second
		g := e.apply(t, "three")
		e.requireServing(t, g.Number, "three")
	})
}

// Whenever the caller cancels, disk and nginx agree afterwards.
func TestApplyCancelled(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		body, last := "one", 1
		_, err := e.Apply(cancelled(), e.files("never"), Note{})
		require.ErrorIs(t, err, context.Canceled)
		for n := range 12 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n*n)*time.Millisecond)
			next := fmt.Sprintf("try %d", n)
			g, err := e.Apply(ctx, e.files(next), Note{})
			cancel()
			if err == nil {
				body, last = next, g.Number
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, ErrRejected, "a cancelled Apply is no refusal by nginx")
			}
			e.requireServing(t, last, body)
			e.requireClean(t)
		}
	})
}

// After the swap, cancelling ends only the wait for an nginx that does not run.
func TestApplyCancelledWithoutNginx(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary, func(o *Options) { o.VerifyTimeout = time.Hour })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				if current, _ := e.Current(); current.Number == 1 {
					cancel()
				}
				time.Sleep(time.Millisecond)
			}
		}()
		_, err := e.Apply(ctx, e.files("one"), Note{})
		require.ErrorIs(t, err, ErrNotRunning)
		current, err := e.Current()
		require.NoError(t, err)
		assert.Equal(t, 1, current.Number)
	})
}
