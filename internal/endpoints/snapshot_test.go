package endpoints

import (
	"os"
	"path/filepath"
	"testing"
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

	t.Run("a missing one is an empty table", func(t *testing.T) {
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
	t.Run("what vanished meanwhile is guarded", func(t *testing.T) {
		e := open(t, path).Observe(noon.Add(time.Hour), []Service{service("hello", "a")})
		assert.Equal(t, "hello[a b c d e]", rotation(e))
		assert.Equal(t, "hello=held", states(e))
	})
	t.Run("what was replaced meanwhile is not", func(t *testing.T) {
		e := open(t, path).Observe(noon.Add(time.Hour), []Service{service("hello", "f", "g", "h", "i", "j")})
		assert.Equal(t, "hello[f g h i j]", rotation(e))
	})
	t.Run("the state goes on as if nothing had happened", func(t *testing.T) {
		e := open(t, path).Observe(noon.Add(time.Hour), five)
		assert.Equal(t, Fresh, e[0].State)
		assert.Equal(t, noon, e[0].Since.UTC())
	})
}

func TestARestartDuringAWeakTokenSpellKeepsEverything(t *testing.T) {
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

func TestHoldsRunAfreshAfterARestart(t *testing.T) {
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

func TestIncumbentsAndQuarantineSurviveARestart(t *testing.T) {
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

func TestABrokenSnapshotIsMovedAside(t *testing.T) {
	good := `{"version":1,"services":[{"name":"hello","understood":true,"protocol":"grpc","state":"fresh","since":"2026-07-01T12:00:00Z",` +
		`"instances":[{"id":"a","node":"n","address":"10.0.0.1","port":7777,"weight":1,"status":"passing"}]}]}`
	tests := []struct {
		name, content, want string
	}{
		{"cut short", good[:60], "unexpected end of JSON input"},
		{"empty", "", "unexpected end of JSON input"},
		{"of another version", `{"version":2,"services":[]}`, "version 2, want 1"},
		{"with a field nobody knows", `{"version":1,"services":[],"extra":1}`, `unknown field "extra"`},
		{"with more behind it", good + good, "invalid character"},
		{"with a protocol nobody knows", `{"version":1,"services":[{"name":"hello","understood":true,"protocol":"ftp","state":"fresh","since":"2026-07-01T12:00:00Z"}]}`, `protocol "ftp" unknown`},
		{"with an address that breaks out", `{"version":1,"services":[{"name":"hello","understood":true,"protocol":"grpc","state":"fresh","since":"2026-07-01T12:00:00Z",` +
			`"instances":[{"id":"a","node":"n","address":"10.0.0.1;}","port":7777,"weight":1,"status":"passing"}]}]}`, `address "10.0.0.1;}", want an IP address or a host name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endpoints.json")
			require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o600))
			tb, err := Open(path, Options{})
			require.ErrorIs(t, err, ErrSnapshot)
			assert.ErrorContains(t, err, path)
			assert.ErrorContains(t, err, tt.want)
			assert.Empty(t, tb.Entries())
			assert.NoFileExists(t, path)
			assert.FileExists(t, path+".broken")
			tb.Observe(noon, []Service{service("hello", "a")})
			assert.NoError(t, tb.Save())
		})
	}
	path := filepath.Join(t.TempDir(), "endpoints.json")
	require.NoError(t, os.WriteFile(path, []byte(good), 0o600))
	assert.Equal(t, "hello[a]", rotation(open(t, path).Entries()))

	_, err := Open(t.TempDir(), Options{})
	assert.ErrorContains(t, err, "read endpoint snapshot")
}

func TestSaveSaysWhatFailed(t *testing.T) {
	tb := open(t, filepath.Join(t.TempDir(), "missing", "endpoints.json"))
	assert.ErrorContains(t, tb.Save(), "save endpoint snapshot: ")
}
