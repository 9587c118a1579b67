package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
	"lbctl/internal/routing"
)

func TestRoutingIsThatOfTheGeneration(t *testing.T) {
	bubble(t, func(r *rig) {
		routed := func(hash, service string) {
			r.source.updates <- render.Configuration{
				Hash: hash, Files: map[string][]byte{"nginx.conf": []byte(hash)}, Entries: []endpoints.Entry{entry(service, 1)},
				Listeners: []routing.Listener{{Name: "grpc", Ways: []routing.Way{{Service: service}}}},
			}
			r.wait(time.Minute)
		}
		serves := func(generation int, inForce bool, service string) {
			t.Helper()
			got := r.c.Routing()
			assert.Equal(t, generation, got.Generation)
			assert.Equal(t, inForce, got.InForce)
			require.Len(t, got.Listeners, 1)
			assert.Equal(t, service, got.Listeners[0].Ways[0].Service)
		}
		assert.Empty(t, r.c.Routing().Listeners)
		routed("a", "one")
		serves(1, true, "one")
		routed("b", "two")
		serves(2, true, "two")

		_, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		r.wait(0)
		serves(1, false, "two") // the routes of an older generation are not kept
		require.NoError(t, r.c.Resume(r.Context()))
		r.wait(time.Minute)
		serves(3, true, "two")

		r.restart()
		assert.False(t, r.c.Routing().InForce)
		routed("b", "two")
		serves(3, true, "two")
	})
}
