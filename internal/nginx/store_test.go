package nginx

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/disk"
	"lbctl/internal/nginxtest"
)

func replaceOnce(text, old, new string) string { return strings.Replace(text, old, new, 1) }

func TestPrune(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary, func(o *Options) { o.Keep = 3 })
		for n := 2; n <= 5; n++ {
			e.apply(t, fmt.Sprint(n))
		}
		assert.Equal(t, []int{5, 4, 3}, e.numbers(t))
		_, err := e.Activate(t.Context(), 3)
		require.NoError(t, err)
		e.apply(t, "6")
		assert.Equal(t, []int{6, 5, 4}, e.numbers(t), "the former current generation is an old one")

		_, err = e.Activate(t.Context(), 4)
		require.NoError(t, err)
		require.NoError(t, e.store.prune(1, 4))
		assert.Equal(t, []int{6, 4}, e.numbers(t), "the current one stays at any age")
		e.requireServing(t, 4, "4")
	})
}

func (e *env) numbers(t *testing.T) []int {
	t.Helper()
	numbers, err := e.store.numbers()
	require.NoError(t, err)
	return numbers
}

// TestRecovery has the leftovers of a crash at each step.
func TestRecovery(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for _, c := range []struct {
			name    string
			crash   func(t *testing.T, e *env)
			current int // after New
			serving int // before anything else happens
			next    int // number of the next generation
		}{
			{
				name: "while storing: the work in progress is forgotten",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, os.MkdirAll(filepath.Join(e.store.newDir(), "conf.d"), 0o755))
					require.NoError(t, os.WriteFile(filepath.Join(e.store.newDir(), MainFile), []byte("half"), 0o644))
				},
				current: 2, serving: 2, next: 3,
			},
			{
				name: "stored, but not swapped: its number is not used again",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, e.store.write(Generation{Number: 3, Created: time.Now()}, e.complete("three", 3)))
					require.NoError(t, e.store.publish(3))
				},
				current: 2, serving: 2, next: 4,
			},
			{
				name: "while swapping: the new link is not the link yet",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, os.Symlink("generations/000003", e.store.newLink()))
				},
				current: 2, serving: 2, next: 3,
			},
			{
				name: "swapped, but not reloaded: nginx still serves the one before",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, e.store.write(Generation{Number: 3, Created: time.Now()}, e.complete("three", 3)))
					require.NoError(t, e.store.publish(3))
					require.NoError(t, e.store.swap(3))
				},
				current: 3, serving: 2, next: 4,
			},
			{
				name: "the current generation is gone: back to the newest that was served",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, e.store.write(Generation{Number: 3, Created: time.Now()}, e.complete("three", 3)))
					require.NoError(t, e.store.publish(3))
					require.NoError(t, os.RemoveAll(e.store.path(2)))
				},
				current: 1, serving: 2, next: 4,
			},
			{
				name:    "the link is gone: back to the newest that was served",
				crash:   func(t *testing.T, e *env) { require.NoError(t, os.Remove(e.store.link())) },
				current: 2, serving: 2, next: 3,
			},
			{
				name: "the link leads to half a generation: back to the newest that was served",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, os.Mkdir(e.store.path(3), 0o755))
					require.NoError(t, e.store.swap(3))
				},
				current: 2, serving: 2, next: 4,
			},
			{
				name: "generation.json is gone or broken: there is only less to tell",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, os.Remove(filepath.Join(e.store.path(1), noteFile)))
					require.NoError(t, os.WriteFile(filepath.Join(e.store.path(2), noteFile), []byte(`{"number": 9, "cre`), 0o644))
				},
				current: 2, serving: 2, next: 3,
			},
			{
				name: "while pruning: the rest goes too",
				crash: func(t *testing.T, e *env) {
					require.NoError(t, os.Rename(e.store.path(1), filepath.Join(e.store.generations(), ".old-000001")))
				},
				current: 2, serving: 2, next: 3,
			},
		} {
			t.Run(c.name, func(t *testing.T) {
				e := started(t, binary)
				e.apply(t, "two")
				e.requireServing(t, 2, "two")
				c.crash(t, e)
				e.reopen(t)
				current, err := e.Current()
				require.NoError(t, err)
				assert.Equal(t, c.current, current.Number, "current")
				assert.False(t, current.Created.IsZero())
				serving, err := e.Serving(t.Context())
				require.NoError(t, err)
				assert.Equal(t, c.serving, serving, "serving")

				// The current generation works, and a new one too.
				_, err = e.Activate(t.Context(), c.current)
				require.NoError(t, err)
				g := e.apply(t, "next")
				assert.Equal(t, c.next, g.Number)
				e.requireServing(t, c.next, "next")
				e.requireClean(t)
			})
		}
	})
}

// complete returns files for store.write.
func (e *env) complete(body string, n int) map[string][]byte {
	return withFile(e.files(body), GenerationFile, e.generationConf(n, e.socketPath()))
}

// After a crash between swap and reload, a refusal leads back to the generation that nginx
// serves, not to the current one.
func TestRollBackToTheServedGeneration(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		_, err := e.Apply(t.Context(), e.files("two", "limit_req_zone $binary_remote_addr zone=z:1m rate=9r/s;"), Note{})
		require.NoError(t, err)
		e.requireServing(t, 2, "two")
		bad := e.files("three", "limit_req_zone $server_name zone=z:1m rate=9r/s;")
		require.NoError(t, e.store.write(Generation{Number: 3, Created: time.Now()}, withFile(bad, GenerationFile, e.generationConf(3, e.socketPath()))))
		require.NoError(t, e.store.publish(3))
		require.NoError(t, e.store.swap(3))
		e.reopen(t)
		_, err = e.Apply(t.Context(), bad, Note{})
		require.ErrorIs(t, err, ErrRolledBack)
		assert.ErrorContains(t, err, "generation 4: rolled back to 2: ")
		e.requireServing(t, 2, "two")
	})
}

// lbctl is killed again and again at random moments. nginx keeps serving, and the next lbctl
// finds a complete generation on disk.
func TestKilledWhileApplying(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		stop := e.traffic(t)
		for range 8 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestApplyForEver$")
			cmd.Env = append(os.Environ(), "APPLY_FOR_EVER="+strings.Join([]string{e.state, e.run, e.binary.Path, fmt.Sprint(e.port)}, " "))
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			before := e.numbers(t)[0]
			require.NoError(t, cmd.Start())
			require.Eventually(t, func() bool { return e.numbers(t)[0] > before }, 30*time.Second, time.Millisecond)
			time.Sleep(rand.N(150 * time.Millisecond)) // a random moment
			require.NoError(t, cmd.Process.Kill())
			cmd.Wait()

			e.reopen(t)
			current, err := e.Current()
			require.NoError(t, err)
			files, err := e.Files(current.Number)
			require.NoError(t, err)
			require.Equal(t, e.files(current.Hash), files, "generation %d is complete", current.Number)
			_, err = e.Activate(t.Context(), current.Number)
			require.NoError(t, err)
			e.requireServing(t, current.Number, current.Hash)
		}
		assert.Positive(t, stop())
		// A killed nginx -t leaves its directory for a minute.
		for _, dir := range e.tests(t) {
			require.NoError(t, os.Chtimes(dir, time.Time{}, time.Now().Add(-time.Hour)))
		}
		e.apply(t, "last")
		e.requireClean(t)
	})
}

func (e *env) tests(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(e.run, "test-*"))
	require.NoError(t, err)
	return dirs
}

// TestApplyForEver runs in the process that TestKilledWhileApplying kills.
func TestApplyForEver(t *testing.T) {
	var e env
	if _, err := fmt.Sscan(os.Getenv("APPLY_FOR_EVER"), &e.state, &e.run, &e.binary.Path, &e.port); err != nil {
		t.Skip("only for TestKilledWhileApplying")
	}
	e.reopen(t)
	for {
		e.apply(t, fmt.Sprint("body ", rand.Int()))
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := newEnv(t, binary)
		if err := syscall.Mount("none", e.state, "tmpfs", 0, "size=512k"); err != nil {
			t.Skipf("mount a small tmpfs: %v", err)
		}
		t.Cleanup(func() { assert.NoError(t, syscall.Unmount(e.state, syscall.MNT_DETACH)) })
		e.reopen(t)
		e.apply1(t)
		process := e.start(t)
		t.Cleanup(process.Stop) // before the unmount

		big := e.files("two")
		big["big.conf"] = []byte("# " + strings.Repeat("x", 1<<20))
		g, err := e.Apply(t.Context(), big, Note{})
		require.ErrorIs(t, err, ErrStore)
		assert.ErrorContains(t, err, "store generation 2: cannot write to disk: write ")
		assert.ErrorIs(t, err, syscall.ENOSPC)
		assert.Zero(t, g)
		e.requireServing(t, 1, "one")
		e.requireClean(t)

		// Not a byte is free.
		rest, err := os.Create(filepath.Join(e.state, "rest"))
		require.NoError(t, err)
		for err == nil {
			_, err = rest.Write(make([]byte, 4096))
		}
		require.NoError(t, rest.Close())
		_, err = e.Apply(t.Context(), e.files("two"), Note{})
		require.ErrorIs(t, err, ErrStore)
		e.requireServing(t, 1, "one")
		e.requireClean(t)
		_, err = e.Activate(t.Context(), 1)
		require.NoError(t, err, "the stored generation can be served")
		require.NoError(t, os.Remove(rest.Name()))
		e.requireServing(t, e.apply(t, "two").Number, "two")
	})
}

func TestStoreNotWritable(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		e := started(t, binary)
		// A directory in the place of the link stops even root if a hundred were moved aside
		// before.
		require.NoError(t, os.Remove(e.store.link()))
		require.NoError(t, os.MkdirAll(filepath.Join(e.store.link(), "in the way"), 0o755))
		var aside []string
		for {
			path, err := disk.MoveAside(e.store.link())
			if err != nil {
				break
			}
			aside = append(aside, path)
			require.NoError(t, os.MkdirAll(filepath.Join(e.store.link(), "in the way"), 0o755))
		}
		_, err := e.Apply(t.Context(), e.files("two"), Note{})
		require.ErrorIs(t, err, ErrStore)
		assert.ErrorContains(t, err, e.store.link())
		answer, err := e.get()
		require.NoError(t, err)
		assert.Equal(t, "one", answer)
		current, err := e.Current()
		require.NoError(t, err)
		assert.Zero(t, current.Number, "there is no link")

		require.NoError(t, os.RemoveAll(aside[0]))
		_, err = e.Apply(t.Context(), e.files("two"), Note{})
		require.NoError(t, err, "the directory is moved aside")
		e.requireServing(t, 3, "two") // 2 could not be made current
	})
}
