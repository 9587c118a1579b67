package endpoints_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/endpoints/endpointstest"
)

func withSpec(spec endpoints.Spec) []endpoints.Service {
	return []endpoints.Service{{Name: "api", Spec: spec, OK: true, Instances: []endpoints.Instance{
		{ID: "a", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1, Status: endpoints.Passing},
	}}}
}

func TestEveryFieldOfSpecCounts(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	full := endpointstest.Full()
	for field, changed := range endpointstest.Changes(full) {
		open := func(t *testing.T, path string) *endpoints.Table {
			table, err := endpoints.Open(path, endpoints.Options{})
			require.NoError(t, err)
			return table
		}
		// refused is a table whose nginx accepted full and refused changed.
		refused := func(t *testing.T, path string) *endpoints.Table {
			table := open(t, path)
			table.NginxAccepted(table.Observe(now, withSpec(full)))
			require.True(t, table.Refuse(now, table.Observe(now, withSpec(changed))[0], endpoints.Refusal{Reason: "bad"}))
			return table
		}
		t.Run(field, func(t *testing.T) {
			t.Run("when compared", func(t *testing.T) {
				assert.True(t, full.Equal(full))
				assert.False(t, full.Equal(changed))
				assert.False(t, changed.Equal(full))
			})
			t.Run("when an unchanged service is observed again", func(t *testing.T) {
				table, services := open(t, ""), withSpec(full)
				table.Observe(now, services)
				services[0].Spec = changed
				assert.Equal(t, changed, table.Observe(now, services)[0].Spec)
			})
			t.Run("in the snapshot", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "endpoints.json")
				table := open(t, path)
				table.Observe(now, withSpec(changed))
				require.NoError(t, table.Save())
				remembered, ok := open(t, path).Remembered("api")
				require.True(t, ok)
				assert.Equal(t, changed, remembered.Spec)
			})
			t.Run("for who may be at fault", func(t *testing.T) {
				table := open(t, "")
				table.NginxAccepted(table.Observe(now, withSpec(full)))
				assert.Empty(t, table.Suspects(table.Observe(now, withSpec(full))))
				suspects := table.Suspects(table.Observe(now, withSpec(changed)))
				require.Len(t, suspects, 1)
				assert.Equal(t, full, suspects[0].Last.Spec)
			})
			t.Run("in quarantine, where the accepted one is served", func(t *testing.T) {
				table := refused(t, "")
				e := table.Observe(now, withSpec(changed))[0]
				assert.Equal(t, endpoints.Quarantined, e.State)
				assert.Equal(t, full, e.Spec)
			})
			t.Run("in quarantine, across a restart", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "endpoints.json")
				require.NoError(t, refused(t, path).Save())
				table := open(t, path)
				e := table.Observe(now, withSpec(changed))[0]
				require.Equal(t, changed, e.Spec, "it is tried")
				table.Refuse(now, e, endpoints.Refusal{Reason: "bad"})
				assert.Equal(t, full, table.Observe(now, withSpec(changed))[0].Spec)
			})
			t.Run("in quarantine, where another one is tried at once", func(t *testing.T) {
				table := open(t, "")
				require.True(t, table.Refuse(now, table.Observe(now, withSpec(changed))[0], endpoints.Refusal{Reason: "bad"}))
				assert.True(t, table.Observe(now, withSpec(changed))[0].Refused)
				e := table.Observe(now, withSpec(full))[0]
				assert.False(t, e.Refused)
				assert.Equal(t, full, e.Spec)
			})
		})
	}
}
