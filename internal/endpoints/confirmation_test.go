package endpoints

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMaxStale(t *testing.T) {
	all := []Service{service("api", "x:critical"), service("hello", "a", "b")}
	away, filtered := Trust{NoLeader: true}, Trust{Filtered: true}
	at := func(d time.Duration) time.Time { return noon.Add(d) }

	t.Run("Consul goes away after an hour without changes", func(t *testing.T) {
		tb := tuned(t, Options{MaxStale: time.Minute})
		tb.Observe(noon, all)
		assert.Zero(t, tb.NextDeadline())
		tb.SetTrust(at(time.Hour), away)
		got := tb.Observe(at(time.Hour), all)
		assert.Equal(t, "api[x] hello[a b]", rotation(got))
		assert.Equal(t, at(time.Hour+time.Minute), tb.NextDeadline())
		assert.Equal(t, "api[x] hello[a b]", rotation(tb.Observe(at(time.Hour+59*time.Second), all)))

		got = tb.Observe(tb.NextDeadline(), all)
		assert.Equal(t, "api[] hello[]", rotation(got))
		assert.Equal(t, "api=stale hello=stale", states(got))
		assert.True(t, got[1].Expired)
		assert.Contains(t, got[1].Reason, "its instances get no traffic, because Consul has not confirmed them since "+at(time.Hour).Local().Format(time.DateTime)+", longer than 1m0s")
		assert.Zero(t, tb.NextDeadline())

		tb.SetTrust(at(2*time.Hour), Trust{})
		got = tb.Observe(at(2*time.Hour), all)
		assert.Equal(t, "api[x] hello[a b]", rotation(got))
		assert.Equal(t, "api=panic hello=fresh", states(got))
	})
	t.Run("observations while Consul is away confirm nothing", func(t *testing.T) {
		tb := tuned(t, Options{MaxStale: time.Minute})
		tb.Observe(noon, all)
		tb.SetTrust(noon, away)
		for n := range 5 {
			tb.Observe(at(time.Duration(n)*10*time.Second), all)
		}
		assert.Equal(t, "api[] hello[]", rotation(tb.Observe(at(time.Minute), all)))
	})
	t.Run("filtered answers confirm what they list", func(t *testing.T) {
		tb := tuned(t, Options{MaxStale: time.Minute})
		tb.Observe(noon, all)
		tb.SetTrust(noon, filtered)
		assert.Equal(t, "api[x] hello[a b]", rotation(tb.Observe(at(30*time.Second), all[:1])))
		assert.Equal(t, at(time.Minute), tb.NextDeadline())
		got := tb.Observe(tb.NextDeadline(), all[:1])
		assert.Equal(t, "api[x] hello[]", rotation(got))
		assert.Equal(t, "api=panic hello=stale", states(got))
	})
	t.Run("for ever by default", func(t *testing.T) {
		tb := table(t)
		tb.Observe(noon, all)
		tb.SetTrust(noon, away)
		assert.Equal(t, "api[x] hello[a b]", rotation(tb.Observe(at(10000*time.Hour), all)))
		assert.Zero(t, tb.file.interval)
	})
}

func TestAges(t *testing.T) {
	tb := table(t)
	tb.Observe(noon, []Service{service("a", "a1"), service("b", "b1")})
	now := noon.Add(time.Hour)
	assert.Equal(t, map[string]time.Duration{"a": 0, "b": 0}, tb.Ages(now), "Consul confirms both, though nothing changes")
	tb.SetTrust(now, Trust{NoLeader: true})
	assert.Equal(t, map[string]time.Duration{"a": time.Minute, "b": time.Minute}, tb.Ages(now.Add(time.Minute)))
	tb.SetTrust(now.Add(time.Minute), Trust{})
	assert.Equal(t, map[string]time.Duration{"a": 0, "b": 0}, tb.Ages(now.Add(time.Minute)))
}

func TestTheAgeSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		opts := Options{MaxStale: 10 * time.Minute}
		all := []Service{service("hello", "a", "b")}
		tb, err := Open(path, opts)
		require.NoError(t, err)
		tb.Observe(time.Now(), all)
		require.NoError(t, tb.Save())
		for range 120 { // two hours in which Consul is well, and nothing happens
			time.Sleep(tb.file.interval)
			require.NoError(t, tb.Save())
		}
		crashed, err := Open(path, opts)
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(10*time.Minute), crashed.NextDeadline(), tb.file.interval, "the table was not saved at the end")
		tb.SetTrust(time.Now(), Trust{NoLeader: true})
		left := time.Now()
		time.Sleep(5 * time.Minute)
		tb.Observe(time.Now(), all)
		require.NoError(t, tb.Save())

		tb, err = Open(path, opts)
		require.NoError(t, err)
		assert.Equal(t, "hello[a b]", rotation(tb.Entries()))
		tb.SetTrust(time.Now(), Trust{NoLeader: true})
		assert.True(t, left.Add(10*time.Minute).Equal(tb.NextDeadline()), "%s, left at %s", tb.NextDeadline(), left)
		assert.False(t, tb.Reconsider(time.Now()))
		time.Sleep(5 * time.Minute)
		assert.True(t, tb.Reconsider(time.Now()))
		assert.Equal(t, "hello[]", rotation(tb.Entries()))
		assert.Contains(t, tb.Entries()[0].Reason, "from the snapshot")
		assert.Zero(t, tb.NextDeadline())

		tb.SetTrust(time.Now(), Trust{})
		assert.Equal(t, "hello[]", rotation(tb.Entries()), "Consul has not answered yet")
		assert.Equal(t, "hello[a b]", rotation(tb.Observe(time.Now(), all)))
		assert.False(t, tb.Reconsider(time.Now()), "there was an observation")
	})
}

func TestASnapshotWithoutAgesIsAsOldAsItsLastChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	tb.Observe(noon, []Service{service("hello", "a")})
	require.NoError(t, tb.Save())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var old map[string]any
	require.NoError(t, json.Unmarshal(b, &old))
	delete(old, "confirmed")
	b, err = json.Marshal(old)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b, 0o600))

	tb, err = Open(path, Options{MaxStale: time.Minute})
	require.NoError(t, err)
	assert.Equal(t, noon.Add(time.Minute), tb.NextDeadline().UTC())
}

func TestASnapshotStoresTheAgeOfUnconfirmedServices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	left := time.Now().Add(-time.Hour)
	tb.Observe(left, []Service{service("a", "1"), service("b", "2")})
	tb.mu.Lock()
	tb.confirmation.unconfirmed = map[string]string{"b": "its query fails"} // as SetUnconfirmed does at once
	tb.mu.Unlock()
	began := time.Now()
	require.NoError(t, tb.Save())

	tb, err := Open(path, Options{MaxStale: time.Minute})
	require.NoError(t, err)
	assert.WithinDuration(t, began, tb.records["a"].confirmed, time.Minute)
	assert.True(t, left.Equal(tb.records["b"].confirmed), "%s", tb.records["b"].confirmed)
}

func TestProbesEjectUnconfirmedInstances(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	tb := open(t, path)
	tb.Observe(noon, []Service{service("hello", "a", "b")})
	require.NoError(t, tb.Save())
	tb = open(t, path)
	assert.False(t, tb.Reconsider(noon))
	fail(tb, "b")
	assert.True(t, tb.Reconsider(noon))
	assert.Equal(t, "hello[a]", rotation(tb.Entries()))
	tb.Readmit("hello", "node-b", "b", ByProbe)
	assert.True(t, tb.Reconsider(noon), "nginx gets it back")
	assert.True(t, tb.Reconsider(noon), "nginx may not have it yet")
	assert.Equal(t, "hello[a b]", rotation(tb.Entries()))
}
