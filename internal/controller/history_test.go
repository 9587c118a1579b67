package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHistoryKeepsTheLastThousand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	h := &history{path: path}
	require.NoError(t, h.load())
	for n := range 2500 {
		require.NoError(t, h.add(Event{Time: time.Now(), Kind: Applied, Generation: n}))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(b), "\n"), historyKeep+historySlack)

	again := &history{path: path}
	require.NoError(t, again.load())
	for _, h := range []*history{h, again} {
		events := h.newestFirst()
		require.Len(t, events, historyKeep)
		assert.Equal(t, 2499, events[0].Generation)
		assert.Equal(t, 1500, events[999].Generation)
	}
}

func TestHistorySurvivesABrokenLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	h := &history{path: path}
	for n := range 3 {
		require.NoError(t, h.add(Event{Kind: Applied, Generation: n}))
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprint(f, `{"kind":"appl`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	h = &history{path: path}
	require.NoError(t, h.load())
	require.NoError(t, h.add(Event{Kind: Drift, Generation: 3}))
	h = &history{path: path}
	require.NoError(t, h.load())
	require.Len(t, h.newestFirst(), 4)
	assert.Equal(t, Drift, h.newestFirst()[0].Kind)
}

func TestHistorySaysWhatItCantDo(t *testing.T) {
	h := &history{path: filepath.Join(t.TempDir(), "missing", "history.jsonl")}
	assert.Error(t, h.add(Event{}))
	assert.Len(t, h.newestFirst(), 1, "it is remembered even so")
	h = &history{path: t.TempDir()}
	assert.ErrorContains(t, h.load(), "read history: ")
}
