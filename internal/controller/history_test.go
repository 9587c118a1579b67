package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/disk"
)

func addAndWrite(h *history, e Event) error {
	h.add(e)
	return h.write()
}

func TestHistoryKeepsTheLastThousand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	h := newHistory(path)
	require.NoError(t, h.load(slog.New(slog.DiscardHandler)))
	for n := range 2500 {
		require.NoError(t, addAndWrite(h, Event{Time: time.Now(), Kind: Applied, Generation: n}))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(b), "\n"), historyKeep+historySlack)

	again := newHistory(path)
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
	h := newHistory(path)
	for n := range 3 {
		require.NoError(t, addAndWrite(h, Event{Kind: Applied, Generation: n}))
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprint(f, `{"kind":"appl`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	h = newHistory(path)
	require.NoError(t, h.load(slog.New(slog.DiscardHandler)))
	require.NoError(t, addAndWrite(h, Event{Kind: Drift, Generation: 3}))
	h = newHistory(path)
	require.NoError(t, h.load(slog.New(slog.DiscardHandler)))
	require.Len(t, h.newestFirst(), 4)
	assert.Equal(t, Drift, h.newestFirst()[0].Kind)
}

// TestHistoryOnAFullDisk has a disk that is full for a while, and an lbctl that starts
// meanwhile.
func TestHistoryOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	require.NoError(t, os.Symlink("/dev/full", path))
	h := newHistory(path)
	require.ErrorIs(t, addAndWrite(h, Event{Kind: Applied, Generation: 1}), disk.ErrUnfit)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte(`{"kind":"appl`), 0o644)) // the part that had room
	require.NoError(t, addAndWrite(h, Event{Kind: Applied, Generation: 2}))

	require.NoError(t, os.WriteFile(path+".torn", []byte(`{"kind":"appl`), 0o644))
	require.NoError(t, os.Mkdir(path+".torn.new", 0o755)) // no room for another file
	torn := newHistory(path + ".torn")
	require.NoError(t, torn.load(slog.New(slog.DiscardHandler)), "lbctl starts")

	again := newHistory(path)
	require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
	require.Len(t, again.newestFirst(), 2, "events without room are written later")
	assert.Equal(t, 2, again.newestFirst()[0].Generation)
}

func TestHistoryReportsWriteErrors(t *testing.T) {
	h := newHistory(filepath.Join(t.TempDir(), "missing", "history.jsonl"))
	assert.Error(t, addAndWrite(h, Event{}))
	assert.Len(t, h.newestFirst(), 1, "the event is kept in memory")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	h = newHistory(filepath.Join(file, "history.jsonl"))
	assert.ErrorContains(t, h.load(slog.New(slog.DiscardHandler)), "read history: ")
}

// hangingDisk is a disk whose writes wait until release.
type hangingDisk struct{ released chan struct{} }

func newHangingDisk() hangingDisk { return hangingDisk{make(chan struct{})} }

func (d hangingDisk) release() { close(d.released) }

func (d hangingDisk) append(path string, content []byte) error {
	<-d.released
	return disk.Append(path, content)
}

// TestTheLoopGoesOnWhileTheDiskHangs checks that lbctl applies changes, checks nginx and
// answers while neither the history nor a pin can be written.
func TestTheLoopGoesOnWhileTheDiskHangs(t *testing.T) {
	bubble(t, func(r *rig) {
		r.end()
		hanging, pins := newHangingDisk(), newHangingDisk()
		r.adjust = func(c *Controller) {
			write := c.storePin
			c.history.append = hanging.append
			c.storePin = func(f *Pin) error {
				<-pins.released
				return write(f)
			}
		}
		r.run()
		r.say("a", entry("hello", 1))
		r.wait(time.Minute)
		r.say("b", entry("hello", 2))
		r.wait(time.Minute)
		assert.Equal(t, []string{"a", "b"}, r.server.hashes())
		assert.Equal(t, []string{"applied 1", "applied 2"}, r.events(), "the history shows it at once")
		assert.NoFileExists(t, filepath.Join(r.dir, "history.jsonl"))

		done := make(chan error, 1)
		go func() {
			_, err := r.c.Rollback(context.Background(), 1)
			done <- err
		}()
		r.wait(time.Second)
		assert.Empty(t, r.server.activated, "the pin is written first")
		r.say("c", entry("hello", 3))
		s := r.status()
		assert.Equal(t, Pending, s.State)
		assert.Equal(t, "hello +1", s.Pending.Change, "the loop takes in Consul's answers")
		assert.Equal(t, "generation 1 is being pinned", s.Pending.Reason)
		pins.release()
		require.NoError(t, <-done)
		assert.FileExists(t, filepath.Join(r.dir, "frozen.json"))
		assert.Equal(t, []int{1}, r.server.activated)

		hanging.release()
		r.end()
		again := newHistory(filepath.Join(r.dir, "history.jsonl"))
		require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
		require.Len(t, again.newestFirst(), 3, "all events are on disk before Run returns")
		assert.Equal(t, RolledBackByOperator, again.newestFirst()[0].Kind)
		assert.NotContains(t, r.log.String(), "history")
	})
}

// TestTheEndDoesNotWaitForADiskForEver also adds more events than the history keeps while
// the disk hangs.
func TestTheEndDoesNotWaitForADiskForEver(t *testing.T) {
	bubble(t, func(r *rig) {
		hanging := newHangingDisk()
		r.end()
		r.adjust = func(c *Controller) { c.history.append = hanging.append }
		r.run()
		r.c.history.add(Event{Kind: NginxUp})
		synctest.Wait()
		for n := range 2 * (historyKeep + historySlack) {
			r.c.history.add(Event{Kind: Applied, Generation: n})
		}
		assert.LessOrEqual(t, len(r.c.history.events), historyKeep+historySlack)
		began := time.Now()
		r.end()
		assert.Equal(t, flushTimeout, time.Since(began))
		assert.Contains(t, r.log.String(), "the disk takes too long")
		hanging.release() // its goroutine then writes them
		synctest.Wait()
		again := newHistory(filepath.Join(r.dir, "history.jsonl"))
		require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
		assert.Len(t, again.newestFirst(), historyKeep)
		assert.Equal(t, 2*(historyKeep+historySlack)-1, again.newestFirst()[0].Generation)
	})
}

// TestAHistoryThatCantBeWrittenIsOneWarning also checks that the events are written later.
func TestAHistoryThatCantBeWrittenIsOneWarning(t *testing.T) {
	bubble(t, func(r *rig) {
		path := filepath.Join(r.dir, "history.jsonl")
		require.NoError(t, os.Mkdir(path, 0o755))
		for n := range 3 {
			r.say(fmt.Sprint(n))
			r.wait(time.Minute)
		}
		assert.Equal(t, 1, strings.Count(r.log.String(), "history not written"))
		require.NoError(t, os.Remove(path))
		r.end()
		again := newHistory(path)
		require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
		assert.Len(t, again.newestFirst(), 3)
	})
}

func TestRereadIsAnEvent(t *testing.T) {
	bubble(t, func(r *rig) {
		r.say("a")
		r.c.Reread(nil)
		r.c.Reread(errors.New("token file: no such file"))
		assert.Equal(t, []string{"applied 1", "reread 1", "reread 1"}, r.events())
		assert.Equal(t, "read token file, certificates and templates again; those with errors keep their former content: token file: no such file", r.c.History()[0].Reason)
		r.restart()
		assert.Len(t, r.events(), 3)

		r.end()
		again := newHistory(filepath.Join(r.dir, "history.jsonl"))
		again.add(Event{Kind: Reread}) // it may come before the history is read
		require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
		require.NoError(t, again.write())
		again = newHistory(again.path)
		require.NoError(t, again.load(slog.New(slog.DiscardHandler)))
		require.Len(t, again.newestFirst(), 4)
		assert.Equal(t, 0, again.newestFirst()[0].Generation)
	})
}
