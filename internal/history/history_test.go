package history

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

func addAndWrite(h *Log, e Event) error {
	h.Add(e)
	return h.write()
}

func TestHistoryKeepsTheLastThousand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jsonl")
	h := New(path)
	require.NoError(t, h.Load(slog.New(slog.DiscardHandler)))
	for n := range 2500 {
		require.NoError(t, addAndWrite(h, Event{Time: time.Now(), Kind: Applied, Generation: n}))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(b), "\n"), keep+slack)

	again := New(path)
	require.NoError(t, again.Load(slog.New(slog.DiscardHandler)))
	for _, h := range []*Log{h, again} {
		events := h.NewestFirst()
		require.Len(t, events, keep)
		assert.Equal(t, 2499, events[0].Generation)
		assert.Equal(t, 1500, events[999].Generation)
	}
}

func TestHistorySurvivesABrokenLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jsonl")
	h := New(path)
	for n := range 3 {
		require.NoError(t, addAndWrite(h, Event{Kind: Applied, Generation: n}))
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprint(f, `{"kind":"appl`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	h = New(path)
	require.NoError(t, h.Load(slog.New(slog.DiscardHandler)))
	require.NoError(t, addAndWrite(h, Event{Kind: Drift, Generation: 3}))
	h = New(path)
	require.NoError(t, h.Load(slog.New(slog.DiscardHandler)))
	require.Len(t, h.NewestFirst(), 4)
	assert.Equal(t, Drift, h.NewestFirst()[0].Kind)
}

func TestLateEventsAreInTheOrderOfTheirTimes(t *testing.T) {
	at := func(seconds int) time.Time { return time.Date(2026, 1, 1, 12, 0, seconds, 0, time.UTC) }
	path := filepath.Join(t.TempDir(), "jsonl")
	h := New(path)
	for n, seconds := range []int{
		300, // while the clock was wrong
		10, 20, 30,
		15, // told late
		30, // at the same time as another
		31,
	} {
		require.NoError(t, addAndWrite(h, Event{Time: at(seconds), Kind: Applied, Generation: n}))
	}
	again := New(path)
	require.NoError(t, again.Load(slog.New(slog.DiscardHandler)))
	for _, h := range []*Log{h, again} {
		var order []int
		for _, e := range h.NewestFirst() {
			order = append(order, e.Generation)
		}
		assert.Equal(t, []int{6, 5, 3, 2, 4, 1, 0}, order)
	}
}

// TestHistoryOnAFullDisk has a disk that is full for a while, and an lbctl that starts
// meanwhile.
func TestHistoryOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jsonl")
	require.NoError(t, os.Symlink("/dev/full", path))
	h := New(path)
	require.ErrorIs(t, addAndWrite(h, Event{Kind: Applied, Generation: 1}), disk.ErrUnfit)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte(`{"kind":"appl`), 0o644)) // the part that had room
	require.NoError(t, addAndWrite(h, Event{Kind: Applied, Generation: 2}))

	require.NoError(t, os.WriteFile(path+".torn", []byte(`{"kind":"appl`), 0o644))
	require.NoError(t, os.Mkdir(path+".torn.new", 0o755)) // no room for another file
	torn := New(path + ".torn")
	require.NoError(t, torn.Load(slog.New(slog.DiscardHandler)), "lbctl starts")

	again := New(path)
	require.NoError(t, again.Load(slog.New(slog.DiscardHandler)))
	require.Len(t, again.NewestFirst(), 2, "events without room are written later")
	assert.Equal(t, 2, again.NewestFirst()[0].Generation)
}

func TestHistoryReportsWriteErrors(t *testing.T) {
	h := New(filepath.Join(t.TempDir(), "missing", "jsonl"))
	assert.Error(t, addAndWrite(h, Event{}))
	assert.Len(t, h.NewestFirst(), 1, "the event is kept in memory")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	h = New(filepath.Join(file, "jsonl"))
	assert.ErrorContains(t, h.Load(slog.New(slog.DiscardHandler)), "read history: ")
}

func TestAnEventBeforeTheHistoryIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	require.NoError(t, addAndWrite(New(path), Event{Kind: Applied, Generation: 1}))
	h := New(path)
	h.Add(Event{Kind: Reread})
	require.NoError(t, h.Load(slog.New(slog.DiscardHandler)))
	require.NoError(t, h.write())
	h = New(path)
	require.NoError(t, h.Load(slog.New(slog.DiscardHandler)))
	require.Len(t, h.NewestFirst(), 2)
	assert.Equal(t, Reread, h.NewestFirst()[0].Kind)
}

func TestLastChangeIsAlsoThatOfAnEarlierProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jsonl")
	h := New(path)
	assert.Nil(t, h.LastChange())
	for _, kind := range []Kind{Applied, Moved, NginxUp, Ejected, Readmitted, Drift, Reread} {
		require.NoError(t, addAndWrite(h, Event{Kind: kind}))
	}
	h = New(path)
	require.NoError(t, h.Load(slog.New(slog.DiscardHandler)))
	require.NotNil(t, h.LastChange())
	assert.Equal(t, Moved, h.LastChange().Kind)
}
