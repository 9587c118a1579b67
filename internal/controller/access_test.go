package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/access"
	"lbctl/internal/kv"
	"lbctl/internal/render"
)

// rules returns the rules of a Keeper after "lbctl deny" of each of the networks.
func (r *rig) rules(networks ...string) *access.Networks {
	r.Helper()
	var rules []access.Rule
	for _, text := range networks {
		parsed, err := access.ParseNetworks(text)
		require.NoError(r, err)
		rules = access.Deny(rules, parsed, access.Write{By: "alice@ops-1", At: bubbleEpoch, Why: "port scan"})
	}
	edits, err := access.Edits(nil, rules, nil)
	require.NoError(r, err)
	var documents []kv.Document
	for _, e := range edits {
		documents = append(documents, kv.Document{Name: e.Before.Name, Value: e.Value, Index: 1})
	}
	keeper, err := access.Open("")
	require.NoError(r, err)
	keeper.Observe(documents)
	return keeper.Networks(time.Now())
}

func TestTheHistoryNamesRulesAboutNetworks(t *testing.T) {
	bubble(t, func(r *rig) {
		change := func(c render.Configuration, instances int) string {
			c.Entries = append(c.Entries, entry("hello", instances))
			c.Files = map[string][]byte{"nginx.conf": []byte(c.Hash)}
			r.source.updates <- c
			r.wait(time.Minute)
			return r.c.History()[0].Change
		}
		denied := r.rules("203.0.113.0/24")
		change(render.Configuration{Hash: "a"}, 1)
		assert.Equal(t, "203.0.113.0/24 denied for every service by alice@ops-1: port scan", change(render.Configuration{Hash: "b", Networks: denied, AccessIndex: 7}, 1))
		assert.Equal(t, "hello +1, 198.51.100.7 denied for every service by alice@ops-1: port scan",
			change(render.Configuration{Hash: "c", Networks: r.rules("203.0.113.0/24", "198.51.100.7"), AccessIndex: 8}, 2))
		assert.Equal(t, "198.51.100.7 and 1 more no longer denied for every service", change(render.Configuration{Hash: "d", AccessIndex: 9}, 2))
		assert.Equal(t, uint64(9), r.status().Access.ServedIndex)

		_, err := r.c.Rollback(r.Context(), 1)
		require.NoError(t, err)
		r.wait(0)
		assert.Zero(t, r.status().Access.ServedIndex, "it is not known which rules an earlier generation has")
	})
}
