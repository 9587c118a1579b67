package access

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/kv"
)

// stored returns the documents of rules and of a key.
func stored(t *testing.T, rules []Rule) []kv.Document {
	t.Helper()
	edits, err := Edits(nil, rules, nil)
	require.NoError(t, err)
	var documents []kv.Document
	for n, e := range edits {
		documents = append(documents, kv.Document{Name: e.Before.Name, Value: e.Value, Index: uint64(n + 1)})
	}
	k := Key{Name: "shop", Kind: APIKey}
	k.SetSecret("x")
	value, err := k.Document()
	require.NoError(t, err)
	return append(documents, kv.Document{Name: KeyName("shop"), Value: value, Index: 99})
}

func TestTheSnapshotOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.json")
	k, err := Open(path)
	require.NoError(t, err)
	assert.False(t, k.Known())
	ctx, cancel := context.WithCancel(t.Context())
	saved := make(chan error, 10)
	ended := make(chan error)
	go func() { ended <- k.Run(ctx, func(err error) { saved <- err }) }()
	rules := Deny(nil, networks(t, "203.0.113.0/24 2001:db8::1"), Write{By: "me", At: noon, Service: "cart"})
	assert.True(t, k.Observe(stored(t, rules)))
	require.NoError(t, <-saved)
	cancel()
	<-ended
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode(), "it has the hashes of passwords")

	again, err := Open(path)
	require.NoError(t, err)
	assert.True(t, again.Known())
	assert.Equal(t, string(k.Networks(noon).Geo()), string(again.Networks(noon).Geo()))
	keys, _ := again.current()
	assert.Len(t, keys.bySum, 1)
	assert.True(t, again.Observe(nil), "Consul says that there are none any more")
	assert.Nil(t, again.Networks(noon))

	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	broken, err := Open(path)
	require.ErrorIs(t, err, ErrSnapshot)
	assert.False(t, broken.Known())
	assert.FileExists(t, path+".broken")
}

func TestABrokenDocumentKeepsItsLastGoodContent(t *testing.T) {
	k, err := Open("")
	require.NoError(t, err)
	rules := Deny(nil, networks(t, "203.0.113.0/24 2001:db8::1"), Write{By: "me", At: noon})
	documents := stored(t, rules)
	k.Observe(documents)
	before := k.Networks(noon)
	documents[0].Value, documents[0].Index = []byte("{"), 200
	k.Observe(documents)
	require.Len(t, k.Problems(), 1)
	assert.Equal(t, documents[0].Name, k.Problems()[0].Document)
	assert.Equal(t, string(before.Geo()), string(k.Networks(noon).Geo()))
	assert.False(t, k.Observe(documents), "nothing has changed")
	assert.Len(t, k.Problems(), 1, "the problem stays")
	k.Observe(documents[1:])
	assert.Empty(t, k.Problems())
	assert.NotEqual(t, string(before.Geo()), string(k.Networks(noon).Geo()))
	k.Observe([]kv.Document{{Name: "access/other", Value: []byte("{}"), Index: 1}})
	assert.Contains(t, k.Problems()[0].Message, "does not know such a document")
}

func TestTooManyRulesKeepTheFormerOnes(t *testing.T) {
	k, err := Open("")
	require.NoError(t, err)
	k.Observe(stored(t, Deny(nil, networks(t, "203.0.113.0/24"), Write{By: "me", At: noon})))
	before := k.Networks(noon)
	documents := stored(t, many(t, MaxRules+1))
	k.Observe(documents)
	require.Len(t, k.Problems(), 1)
	assert.Contains(t, k.Problems()[0].Message, "want at most 200000: the former ones stay in force")
	assert.Same(t, before, k.Networks(noon.Add(time.Hour)))
}
