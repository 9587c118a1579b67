package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"lbctl/internal/lbtest"
)

// TestLbctlKilledAtEveryStep watches the steps of a change on disk with inotify, and kills
// lbctl at each one. No call may fail, nginx must have one complete generation, and the
// next lbctl must complete the change.
func TestLbctlKilledAtEveryStep(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, asking(t), "--keep", "2")
	s.backends(t, 1, 2)
	s.settled(t, 1)
	for n := range 3 { // so that each change also removes an old generation
		s.other(t, n, "1.0")
		s.WaitServing(other(n), 1)
	}
	hidden := event{"seeds", "^now$", unix.IN_MOVED_TO}
	steps := []struct {
		name string
		of   []event
	}{
		{"an upstream's servers are written for a start", []event{{"seeds/start", `.`, unix.IN_CREATE}}},
		{"the endpoint table is being written", []event{{".", `^endpoints\.json\.new$`, unix.IN_CREATE}}},
		{"the endpoint table is written", []event{{".", `^endpoints\.json$`, unix.IN_MOVED_TO}}},
		{"the generation is being stored", []event{{"generations", `^\.new$`, unix.IN_CREATE}}},
		{"nginx is about to test it", []event{{"run", `^test-`, unix.IN_CREATE}}},
		{"nginx has tested it", []event{{"run", `^test-`, unix.IN_DELETE}}},
		{"it is stored", []event{{"generations", `^\d+$`, unix.IN_MOVED_TO}}},
		{"it is about to be the current one", []event{{".", `^\.current\.new$`, unix.IN_CREATE}}},
		{"it is the current one", []event{{".", `^current$`, unix.IN_MOVED_TO}}},
		{"the servers for a start are hidden", []event{hidden}},
		{"nginx has got the signal to reload", []event{hidden, {"run", `^error\.log$`, unix.IN_OPEN}}},
		{"the servers for a start are shown again", []event{hidden, hidden}},
		{"the time of its first serving is being noted", []event{{"generations", `^\.note$`, unix.IN_CREATE}}},
		{"an old one is being removed", []event{{"generations", `^\.old-`, unix.IN_MOVED_TO}}},
		{"the history is written", []event{{".", `^history\.jsonl$`, unix.IN_MODIFY}}},
	}
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)
	for n, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			name := 10 + n
			s.killedAt(t, step.of, func() { s.other(t, name, "1.0") })
			s.StartLbctl()
			s.WaitServing(other(name), 1)
			s.whole(t)
		})
	}
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())

	// lbctl reloads an nginx that has started once that has asked for its instances.
	for n, step := range [][]event{{hidden}, {hidden, hidden}} {
		t.Run(fmt.Sprintf("servers that nginx started with are dropped, step %d", n+1), func(t *testing.T) {
			s.Nginx().Stop()
			s.killedAt(t, step, s.StartNginx)
			load := lbtest.StartLoad(t, s.GRPC, 2, pause)
			s.StartLbctl()
			s.WaitServing(hello, 2)
			s.whole(t)
			load.WaitMore(t, 100)
			lostNothing(t, load.Stop())
		})
	}

	s.other(t, 100, "1.0")
	s.WaitServing(other(100), 1)
	for _, pattern := range []string{".*", "*.new", "generations/.*", "seeds/.*", "seeds/start/*/*.new"} {
		left, err := filepath.Glob(filepath.Join(s.StateDir, pattern))
		require.NoError(t, err)
		assert.Empty(t, left, "the next change cleans up")
	}
}

// whole checks that the generation on disk is complete, and that nginx serves it.
func (s *system) whole(t *testing.T) {
	t.Helper()
	status, err := s.Status()
	require.NoError(t, err)
	target, err := os.Readlink(filepath.Join(s.StateDir, "current"))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("generations/%06d", status.Nginx.Generation), target)
	s.Eventually("an nginx that starts finds its servers", func() error {
		set, err := os.Readlink(filepath.Join(s.StateDir, "seeds", "now"))
		if err == nil && set != "start" {
			err = fmt.Errorf("it reads %s", set)
		}
		return err
	})
	generations, err := filepath.Glob(filepath.Join(s.StateDir, "generations", "[0-9]*"))
	require.NoError(t, err)
	for _, generation := range generations {
		for _, name := range []string{"nginx.conf", "generation.conf", "generation.json"} {
			text, err := os.ReadFile(filepath.Join(generation, name))
			assert.NoError(t, err)
			assert.NotEmpty(t, text)
		}
	}
}

// killedAt makes the change, and kills lbctl as soon as it has seen all the events in this
// order. That is at the step of the last event, or shortly after it.
func (s *system) killedAt(t *testing.T, events []event, change func()) {
	t.Helper()
	seen := watch(t, s.StateDir, events)
	change()
	select {
	case err := <-seen:
		s.KillLbctl()
		require.NoError(t, err)
	case <-time.After(lbtest.Patience):
		t.Fatalf("not seen within %s: %v", lbtest.Patience, events)
	}
}

// event is something that happens to a file.
type event struct {
	dir  string // below the state directory
	name string // regular expression
	mask uint32 // of inotify(7)
}

// watch sends nil once it has seen all the events in this order.
func watch(t *testing.T, stateDir string, events []event) <-chan error {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	require.NoError(t, err)
	queue := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { queue.Close() }) // which ends the goroutine, too
	dirs := map[int32]string{}
	masks := map[string]uint32{}
	for _, e := range events {
		masks[e.dir] |= e.mask
	}
	for dir, mask := range masks {
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(stateDir, dir), mask)
		require.NoError(t, err)
		dirs[int32(wd)] = dir
	}
	seen := make(chan error, 1)
	go func() { seen <- await(queue, dirs, events) }()
	return seen
}

func await(queue *os.File, dirs map[int32]string, events []event) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := queue.Read(buffer)
		if err != nil {
			return err
		}
		for rest := buffer[:n]; len(rest) > 0; {
			if len(rest) < unix.SizeofInotifyEvent {
				return errors.New("inotify gave half an event")
			}
			wd := int32(binary.NativeEndian.Uint32(rest))
			mask := binary.NativeEndian.Uint32(rest[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:size], "\x00"))
			rest = rest[size:]
			next := events[0]
			if dirs[wd] != next.dir || mask&next.mask == 0 || !regexp.MustCompile(next.name).MatchString(name) {
				continue
			}
			if events = events[1:]; len(events) == 0 {
				return nil
			}
		}
	}
}
