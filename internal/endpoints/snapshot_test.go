package endpoints

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func open(t *testing.T, path string) *Table {
	t.Helper()
	tb, err := Open(path, Options{GuardHold: guardHold})
	require.NoError(t, err)
	return tb
}

func TestASnapshotCarriesTheTableAcrossARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	five := []Service{service("hello", "a", "b", "c", "d", "e")}

	t.Run("without a snapshot the table is empty", func(t *testing.T) {
		tb := open(t, path)
		assert.Empty(t, tb.Entries())
		tb.Observe(noon, five)
		require.NoError(t, tb.Save())
	})
	t.Run("before Consul answers its entries are stale", func(t *testing.T) {
		e := open(t, path).Entries()
		assert.Equal(t, "hello=stale", states(e))
		assert.Equal(t, "hello[a b c d e]", rotation(e))
		assert.Contains(t, e[0].Reason, "as of 2026-07-01 12:00:00")
		assert.True(t, e[0].Served())
	})
	t.Run("instances that vanished meanwhile are held", func(t *testing.T) {
		e := open(t, path).Observe(noon.Add(time.Hour), []Service{service("hello", "a")})
		assert.Equal(t, "hello[a b c d e]", rotation(e))
		assert.Equal(t, "hello=held", states(e))
	})
	t.Run("instances that were replaced meanwhile are not held", func(t *testing.T) {
		e := open(t, path).Observe(noon.Add(time.Hour), []Service{service("hello", "f", "g", "h", "i", "j")})
		assert.Equal(t, "hello[f g h i j]", rotation(e))
	})
	t.Run("the state and its start are kept", func(t *testing.T) {
		e := open(t, path).Observe(noon.Add(time.Hour), five)
		assert.Equal(t, Fresh, e[0].State)
		assert.Equal(t, noon, e[0].Since.UTC())
	})
}

func TestARestartWithAWeakTokenKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	tb.Observe(noon, []Service{service("hello", "a", "b", "c"), service("api", "x")})
	tb.SetTrust(noon, Trust{Filtered: true})
	tb.Observe(noon, []Service{service("hello", "a", "b")})
	require.NoError(t, tb.Save())

	later := noon.Add(24 * time.Hour)
	tb = open(t, path)
	assert.Equal(t, Trust{Filtered: true}, tb.Trust())
	e := tb.Observe(later, []Service{service("hello", "a")})
	assert.Equal(t, "api[x] hello[a b c]", rotation(e))

	tb.SetTrust(later, Trust{})
	assert.Equal(t, "api[x] hello[a b c]", rotation(tb.Observe(later, []Service{service("hello", "a")})))
	assert.Equal(t, later.Add(5*time.Minute), tb.NextDeadline())
}

func TestHoldsStartAgainAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	tb.Observe(noon, []Service{service("hello", "a")})
	tb.Observe(noon, nil)
	require.NoError(t, tb.Save())

	tb = open(t, path)
	assert.Equal(t, "hello=held", states(tb.Entries()))
	assert.Zero(t, tb.NextDeadline())
	later := noon.Add(time.Hour)
	e := tb.Observe(later, nil)
	assert.Equal(t, "hello=held", states(e))
	assert.Equal(t, noon, e[0].Since.UTC())
	assert.Equal(t, later.Add(5*time.Minute), tb.NextDeadline())
	assert.Empty(t, tb.Observe(tb.NextDeadline(), nil))
}

func TestOwnersOfRoutesAndQuarantineSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	a, b := service("a", "a1"), service("b", "b1")
	a.Routes, b.Routes = []Route{{Path: "/x"}}, []Route{{Path: "/x"}}
	tb := open(t, path)
	tb.Observe(noon, []Service{b})
	bad := b
	bad.OK = false
	tb.Observe(noon, []Service{bad})
	require.NoError(t, tb.Save())

	e := open(t, path).Observe(noon, []Service{a, bad})
	assert.False(t, e[0].Served())
	assert.True(t, e[1].Served())
	assert.Equal(t, Quarantined, e[1].State)
}

func TestSaveWritesOnlyChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	tb.Observe(noon, []Service{service("hello", "a")})
	require.NoError(t, tb.Save())
	before, err := os.Stat(path)
	require.NoError(t, err)
	tb.Observe(noon.Add(time.Minute), []Service{service("hello", "a")})
	require.NoError(t, tb.Save())
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))

	tb.Observe(noon.Add(time.Minute), []Service{service("hello", "a", "b")})
	require.NoError(t, tb.Save())
	assert.Len(t, open(t, path).Entries()[0].Instances, 2)
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, files, 1, "no temporary file stays")
}

const goodSnapshot = `{"version":1,"services":[{"name":"hello","understood":true,"protocol":"grpc","state":"fresh","since":"2026-07-01T12:00:00Z",` +
	`"instances":[{"id":"a","node":"n","address":"10.0.0.1","port":7777,"weight":1,"status":"passing"}]}]}`

// openBroken opens a snapshot that can't be used, and checks that the table works.
func openBroken(t *testing.T, path, want string) {
	t.Helper()
	tb, err := Open(path, Options{})
	require.ErrorIs(t, err, ErrSnapshot)
	assert.ErrorContains(t, err, path)
	assert.ErrorContains(t, err, want)
	assert.Empty(t, tb.Entries())
	tb.Observe(noon, []Service{service("hello", "a")})
	assert.NoError(t, tb.Save())
	assert.Equal(t, "hello[a]", rotation(open(t, path).Entries()))
}

func TestABrokenSnapshotIsMovedAside(t *testing.T) {
	tests := []struct {
		name, content, want string
	}{
		{"cut short", goodSnapshot[:60], "unexpected end of JSON input"},
		{"empty", "", "unexpected end of JSON input"},
		{"of another version", `{"version":3,"services":[]}`, "version 3, want 1 or 2"},
		{"with trailing data", goodSnapshot + goodSnapshot, "invalid character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endpoints.json")
			require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o600))
			openBroken(t, path, tt.want)
			moved, err := os.ReadFile(path + ".broken")
			require.NoError(t, err)
			assert.Equal(t, tt.content, string(moved))
		})
	}
}

func TestASnapshotThatIsNotAFileIsMovedAside(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"a named pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory":  func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"a socket": func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "e.json")
			require.NoError(t, create(path))
			openBroken(t, path, "it is "+name+", want a regular file; starting without it, it is now "+path+".broken")
		})
	}
	t.Run("twice", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "e.json")
		require.NoError(t, os.MkdirAll(filepath.Join(path+".broken", "full"), 0o700))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		openBroken(t, path, "it is now "+path+".broken.2")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		openBroken(t, path, "it is now "+path+".broken.3")
	})
}

func TestValidPartsOfASnapshotAreUsed(t *testing.T) {
	tests := []struct {
		name, old, new string
		want           string // the rotation
		says           string // the error about the rest
	}{
		{"as it is", "", "", "hello[a]", ""},
		{"a field that a newer lbctl has added", `"version":1,`, `"version":1,"extra":{"a":1},`, "hello[a]", ""},
		{"a new field of a service", `"understood"`, `"timeout":"3s","understood"`, "hello[a]", ""},
		{"a new field of an instance", `"port"`, `"zone":"b","port"`, "hello[a]", ""},
		{"a newer lbctl's check", `"understood"`, `"check":"udp:53","understood"`, "hello[a]", ""},
		{"a newer lbctl's protocol", `"services":[`, `"services":[{"name":"dns","understood":true,"protocol":"udp"},`, "hello[a]", `service "dns": protocol "udp" unknown`},
		{"an address that is nginx configuration", `10.0.0.1`, `10.0.0.1;}`, "", `service "hello": instance "a": address "10.0.0.1;}", want an IP address or a host name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endpoints.json")
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(goodSnapshot, tt.old, tt.new, 1)), 0o600))
			tb, err := Open(path, Options{})
			if tt.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, ErrSnapshot)
				assert.ErrorContains(t, err, tt.says)
			}
			for _, e := range tb.Entries() {
				assert.True(t, e.Policy.General().Check.Valid(), "it can be probed by %q", e.Policy.General().Check)
			}
			assert.Equal(t, tt.want, rotation(tb.Entries()))
			assert.FileExists(t, path)
		})
	}
}

func TestASnapshotFromTheFutureDoesNotDefeatMaxStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	future := strings.ReplaceAll(goodSnapshot, "2026-07-01", "2999-07-01")
	for name, dates := range map[string]string{
		"all confirmed": `"confirmed":"2999-01-01T00:00:00Z",`,
		"only observed": `"observed":"2999-01-01T00:00:00Z",`,
		"one service":   `"confirmed":"2026-01-01T00:00:00Z",`,
	} {
		t.Run(name, func(t *testing.T) {
			content := strings.Replace(future, `"version":1,`, `"version":1,`+dates, 1)
			if name == "one service" {
				content = strings.Replace(content, `"understood"`, `"confirmed":"2999-01-01T00:00:00Z","understood"`, 1)
			}
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			began := time.Now()
			tb, err := Open(path, Options{MaxStale: time.Minute})
			require.NoError(t, err)
			assert.WithinRange(t, tb.NextDeadline(), began.Add(time.Minute), time.Now().Add(time.Minute))
			assert.False(t, tb.Entries()[0].Since.After(time.Now()))
			require.NoError(t, tb.Save())
			again, err := Open(path, Options{MaxStale: time.Minute})
			require.NoError(t, err)
			assert.True(t, again.NextDeadline().Equal(tb.NextDeadline()), "a restart gives it no more time")
			assert.True(t, again.Reconsider(time.Now().Add(2*time.Minute)))
			assert.Equal(t, "hello[]", rotation(again.Entries()))
		})
	}
}

func TestSaveReportsErrors(t *testing.T) {
	tb := open(t, filepath.Join(t.TempDir(), "missing", "endpoints.json"))
	assert.ErrorContains(t, tb.Save(), "save endpoint snapshot: ")
}

func TestRunWritesTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		tb := open(t, path)
		saved := make(chan error, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tb.Run(ctx, func(err error) { saved <- err }) }()
		began := time.Now()
		tb.Observe(noon, []Service{service("hello", "a")})
		require.NoError(t, <-saved)
		assert.Zero(t, time.Since(began), "the first change is written at once")
		tb.Observe(noon, []Service{service("hello", "a", "b")})
		tb.Observe(noon, []Service{service("hello", "a", "b", "c")})
		require.NoError(t, <-saved)
		assert.Equal(t, savePause, time.Since(began), "later changes wait")
		assert.Equal(t, "hello[a b c]", rotation(open(t, path).Entries()))

		time.Sleep(savePause)
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Mkdir(path, 0o700)) // no file can take its place
		tb.Observe(noon, []Service{service("hello", "a")})
		assert.ErrorContains(t, <-saved, "save endpoint snapshot: ")
		require.NoError(t, os.Remove(path))
		require.NoError(t, <-saved, "it is tried again")

		tb.Observe(noon, []Service{service("hello", "b")})
		cancel()
		require.NoError(t, <-saved)
		assert.ErrorIs(t, <-done, context.Canceled)
		assert.Equal(t, "hello[b]", rotation(open(t, path).Entries()), "the last state is on disk")
	})
}

func TestAnOlderLbctlReadsNoSnapshotWithMatches(t *testing.T) {
	for _, c := range []struct {
		route   Route
		version int
	}{
		{Route{Host: "a.test", Path: "/a"}, 1},
		{Route{Path: "/a", Exact: true}, 2},
		{Route{Path: "/shop.*"}, 2},
		{Route{Method: "GET"}, 2},
		{Route{Headers: "x-version=v2"}, 2},
	} {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		tb := open(t, path)
		s := service("hello", "a")
		s.Routes = []Route{c.route}
		tb.Observe(noon, []Service{s})
		require.NoError(t, tb.Save())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Contains(t, string(content), fmt.Sprintf(`"version":%d,`, c.version), c.route)
		assert.Equal(t, s.Routes, open(t, path).Entries()[0].Routes)
	}
}

func TestRoutesOfANewerLbctlAreIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	content := strings.Replace(goodSnapshot, `"protocol":"grpc",`, `"protocol":"grpc","routes":[{"path":"/a"},{"headers":"x=~^v2$"},{"method":"get"},{"headers":"x=1,=2"}],`, 1)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	assert.Equal(t, []Route{{Path: "/a"}}, open(t, path).Entries()[0].Routes)
}
