package kv_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/kv"
)

// enter writes a document with a record in the journal "access/commands".
func enter(t *testing.T, s *kv.Store, name, value, why string) {
	edit := kv.Edit{Before: kv.Document{Name: name}, Value: []byte(value), Unrecorded: true}
	change := kv.Change{Kind: "deny", Why: why, Journal: "access/commands", What: []byte(fmt.Sprintf(`{"n": %q}`, why))}
	assert.NoError(t, s.Write(t.Context(), change, edit))
}

func TestJournal(t *testing.T) {
	s := open(t, consultest.Start(t), "")
	records, err := s.Journal(t.Context(), "access/commands")
	require.NoError(t, err)
	assert.Empty(t, records)
	enter(t, s, "access/a", `{}`, "one")
	enter(t, s, "access/b", `{}`, "two <2>")
	records, err = s.Journal(t.Context(), "access/commands")
	require.NoError(t, err)
	require.Len(t, records, 2)
	assert.Equal(t, "two <2>", records[0].Why, "the newest first")
	assert.JSONEq(t, `{"n": "two <2>"}`, string(records[0].What))
	assert.Equal(t, "deny", records[1].Kind)
	assert.NotEmpty(t, records[1].Who.User)
	assert.False(t, records[1].When.IsZero())

	err = s.Write(t.Context(), kv.Change{Journal: "access/commands"}, kv.Edit{Before: kv.Document{Name: "access/a"}, Value: []byte(`1`), Unrecorded: true})
	var conflict *kv.ConflictError
	require.ErrorAs(t, err, &conflict)
	records, err = s.Journal(t.Context(), "access/commands")
	require.NoError(t, err)
	assert.Len(t, records, 2, "what was not written is not recorded")
}

func TestTheJournalIsBounded(t *testing.T) {
	s := open(t, consultest.Start(t), "")
	const writers = 4
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range kv.MaxJournal/writers + 2 {
				name := fmt.Sprintf("%d-%d", w, n)
				enter(t, s, "access/"+name, `{}`, name)
			}
		})
	}
	group.Wait()
	enter(t, s, "access/last", `{}`, "last")
	records, err := s.Journal(t.Context(), "access/commands")
	require.NoError(t, err)
	assert.Len(t, records, kv.MaxJournal)
	assert.Equal(t, "last", records[0].Why)
}
