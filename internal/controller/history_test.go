package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/disk"
	"lbctl/internal/history"
)

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
			c.history.Append = hanging.append
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
		assert.Empty(t, r.written())

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
		assert.Equal(t, []string{"applied 1", "applied 2", "rollback 1"}, r.written(), "all events are on disk before Run returns")
		assert.NotContains(t, r.log.String(), "history")
	})
}

// TestTheEndDoesNotWaitForADiskForEver also adds more events than the history keeps while
// the disk hangs.
func TestTheEndDoesNotWaitForADiskForEver(t *testing.T) {
	bubble(t, func(r *rig) {
		hanging := newHangingDisk()
		r.end()
		r.adjust = func(c *Controller) { c.history.Append = hanging.append }
		r.run()
		r.c.history.Add(history.Event{Kind: history.NginxUp})
		synctest.Wait()
		for n := range 3000 {
			r.c.history.Add(history.Event{Kind: history.Applied, Generation: n})
		}
		assert.Len(t, r.c.History(), 1000)
		began := time.Now()
		r.end()
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Contains(t, r.log.String(), "the disk takes too long")
		hanging.release() // its goroutine then writes them
		synctest.Wait()
		written := r.written()
		assert.Len(t, written, 999, "and the end of lbctl")
		assert.Equal(t, "applied 2999", written[998])
	})
}

// TestAHistoryThatCantBeWrittenIsOneWarning also checks that the events are written later.
func TestAHistoryThatCantBeWrittenIsOneWarning(t *testing.T) {
	bubble(t, func(r *rig) {
		path := filepath.Join(r.dir, "history.jsonl")
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Mkdir(path, 0o755))
		for n := range 3 {
			r.say(fmt.Sprint(n))
			r.wait(time.Minute)
		}
		assert.Equal(t, 1, strings.Count(r.log.String(), "history not written"))
		require.NoError(t, os.Remove(path))
		r.end()
		assert.Len(t, r.written(), 3)
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

	})
}
