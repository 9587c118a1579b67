package controller

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/disk"
)

func TestHistoryKeepsTheLastThousand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	h := &history{path: path}
	require.NoError(t, h.load(slog.New(slog.DiscardHandler)))
	for n := range 2500 {
		require.NoError(t, h.add(Event{Time: time.Now(), Kind: Applied, Generation: n}))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(b), "\n"), historyKeep+historySlack)

	again := &history{path: path}
	require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
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
	require.NoError(t, h.load(slog.New(slog.DiscardHandler)))
	require.NoError(t, h.add(Event{Kind: Drift, Generation: 3}))
	h = &history{path: path}
	require.NoError(t, h.load(slog.New(slog.DiscardHandler)))
	require.Len(t, h.newestFirst(), 4)
	assert.Equal(t, Drift, h.newestFirst()[0].Kind)
}

// TestHistoryOnAFullDisk has no room to write for a while, and an lbctl that starts
// meanwhile.
func TestHistoryOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	require.NoError(t, os.Symlink("/dev/full", path))
	h := &history{path: path}
	require.ErrorIs(t, h.add(Event{Kind: Applied, Generation: 1}), disk.ErrUnfit)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte(`{"kind":"appl`), 0o644)) // all that there was room for
	require.NoError(t, h.add(Event{Kind: Applied, Generation: 2}))

	require.NoError(t, os.WriteFile(path+".torn", []byte(`{"kind":"appl`), 0o644))
	require.NoError(t, os.Mkdir(path+".torn.new", 0o755)) // no room for another file
	torn := &history{path: path + ".torn"}
	require.NoError(t, torn.load(slog.New(slog.DiscardHandler)), "lbctl starts")

	again := &history{path: path}
	require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
	require.Len(t, again.newestFirst(), 2, "what there was no room for is written later")
	assert.Equal(t, 2, again.newestFirst()[0].Generation)
}

func TestHistorySaysWhatItCantDo(t *testing.T) {
	h := &history{path: filepath.Join(t.TempDir(), "missing", "history.jsonl")}
	assert.Error(t, h.add(Event{}))
	assert.Len(t, h.newestFirst(), 1, "it is remembered even so")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	h = &history{path: filepath.Join(file, "history.jsonl")}
	assert.ErrorContains(t, h.load(slog.New(slog.DiscardHandler)), "read history: ")
}
