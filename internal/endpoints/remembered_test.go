package endpoints

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAnUnconfirmedServiceDoesNotAffectOthers(t *testing.T) {
	table := table(t)
	services := []Service{service("api", "a"), service("web", "b")}
	table.Observe(noon, services)

	table.SetUnconfirmed(map[string]string{"web": "why"})
	later := noon.Add(time.Second)
	entries := table.Observe(later, services)
	assert.Equal(t, Fresh, entries[0].State)
	assert.Equal(t, LastKnownGood, entries[1].State)
	assert.Equal(t, "why", entries[1].Reason)
	assert.Equal(t, later, entries[1].Since)

	table.SetTrust(later, Trust{NoLeader: true})
	for _, e := range table.Observe(later, services) {
		assert.Equal(t, Stale, e.State)
		assert.Contains(t, e.Reason, "Consul has no leader")
		assert.NotContains(t, e.Reason, "why")
	}

	table.SetTrust(later, Trust{})
	table.SetUnconfirmed(nil)
	for _, e := range table.Observe(later, services) {
		assert.Equal(t, Fresh, e.State)
		assert.Empty(t, e.Reason)
	}
}

func TestRememberedServicesCanBeObservedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	table, err := Open(path, Options{})
	require.NoError(t, err)
	api, web := service("api", "a"), service("web", "b", "c:critical")
	api.Default, web.Default = true, true // which api gets
	before := table.Observe(noon, []Service{api, web})
	require.NotEmpty(t, before[1].Problems)
	require.NoError(t, table.Save())
	restored, err := Open(path, Options{})
	require.NoError(t, err)
	for range 3 {
		var services []Service
		for _, name := range []string{"api", "web"} {
			s, ok := restored.Remembered(name)
			require.True(t, ok)
			services = append(services, s)
		}
		assert.Equal(t, before, restored.Observe(noon, services))
	}
	_, ok := restored.Remembered("nobody")
	assert.False(t, ok)
}
