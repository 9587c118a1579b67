package accesslog

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// numbered counts lines.
type numbered struct{ lines uint64 }

func (c *numbered) take(*Record) { c.lines++ }

func (c *numbered) AppendSnapshot(b []byte) []byte { return binary.AppendUvarint(b, c.lines) }

func (c *numbered) Restore(b []byte) error {
	n, length := binary.Uvarint(b)
	if length <= 0 {
		return errors.New("no number")
	}
	c.lines = n
	return nil
}

// kill ends a reader as kill -9 does: it does nothing more.
func kill(r *Reader) {
	for _, l := range r.files {
		l.File.Close()
	}
}

// TestLinesAreCountedOnceOverKills kills readers at all moments.
func TestLinesAreCountedOnceOverKills(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	good := string(line(tries("web", "10.0.0.1:80", "200", "0.001"))) + "\n"
	// No file is ever full, though a late worker keeps one for up to ten rounds.
	opts := Options{Dir: dir, Size: 8 << 20, Reopen: func() error { return nil }}
	var writers []*os.File // what nginx's workers have open
	rest := ""
	written := uint64(0)
	for round := range 400 {
		counts := &numbered{}
		opts.Counts = counts
		r, err := New(opts)
		require.NoError(t, err)
		require.LessOrEqual(t, counts.lines, written, "round %d", round)
		if round%5 == 0 && len(rest) == 0 { // nginx has opened its log again
			f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			writers = append(writers, f)
			t.Cleanup(func() { f.Close() })
		}
		for range 3 {
			// A worker can be late: it has a former file.
			to := writers[len(writers)-1]
			if n := len(writers); n > 1 && rand.IntN(3) == 0 && len(rest) == 0 {
				to = writers[n-2]
			}
			n := rand.IntN(200)
			text := rest + strings.Repeat(good, n)
			written += uint64(n)
			if rest != "" {
				to = writers[len(writers)-1]
				written++
			}
			rest = ""
			if cut := rand.IntN(len(good)); cut > 0 && rand.IntN(2) == 0 && to == writers[len(writers)-1] {
				text += good[:cut]
				rest = good[cut:]
			}
			_, err := to.WriteString(text)
			require.NoError(t, err)
			if rand.IntN(2) == 0 {
				require.NoError(t, r.poll(t.Context(), counts.take))
				require.Equal(t, written, counts.lines, "round %d", round)
			}
		}
		if round%7 == 0 {
			_, err := r.renew()
			require.NoError(t, err)
		}
		switch rand.IntN(4) {
		case 0: // before anything
		case 1: // before the snapshot
			_, err := r.batch(counts.take)
			require.NoError(t, err)
		case 2: // before the memory is free
			_, err := r.batch(counts.take)
			require.NoError(t, errors.Join(err, r.save()))
		case 3:
			require.NoError(t, r.poll(t.Context(), counts.take))
		}
		kill(r)
	}
	counts := &numbered{}
	opts.Counts = counts
	r, err := New(opts)
	require.NoError(t, err)
	defer r.close()
	require.NoError(t, r.poll(t.Context(), counts.take))
	assert.Equal(t, written, counts.lines)
	assert.Equal(t, Stats{Lines: int64(written)}, totals(r))
}

// TestLostDoesNotGoDown kills a reader when it has just told of a loss.
func TestLostDoesNotGoDown(t *testing.T) {
	opts := Options{
		Dir: nginxtest.MemoryDir(t), Size: 8 << 20, Reopen: func() error { return nil },
		Requests: func(context.Context) (Requests, error) { return Requests{}, errors.New("nobody asks") },
	}
	r, err := New(opts)
	require.NoError(t, err)
	r.losses.lost = 7
	require.NoError(t, r.poll(t.Context(), func(*Record) {}))
	require.Equal(t, int64(7), r.Stats().Lost)
	kill(r)
	r, err = New(opts)
	require.NoError(t, err)
	defer r.close()
	assert.Equal(t, int64(7), r.Stats().Lost)
}

func TestFilesThatAreNoLongerWrittenToGo(t *testing.T) {
	dir := nginxtest.MemoryDir(t)
	opts := Options{Dir: dir, Reopen: func() error { return nil }}
	r, err := New(opts)
	require.NoError(t, err)
	for range 3 {
		r.renewed = r.renewed.Add(-renewInterval)
		_, err := r.renew()
		require.NoError(t, err)
	}
	files := func() int {
		all, err := filepath.Glob(r.path + "*")
		require.NoError(t, err)
		return len(all)
	}
	require.Equal(t, 4, files())
	kill(r)

	// Killed between the two steps of a replacement:
	require.NoError(t, os.Link(r.path, r.path+".4"))
	r, err = New(opts)
	require.NoError(t, err)
	defer r.close()
	require.Equal(t, 4, files())
	require.Len(t, r.files, 4)
	for _, l := range r.files {
		l.grew = l.grew.Add(-retireAfter)
	}
	require.NoError(t, r.retire())
	assert.Equal(t, 1, files())
	assert.Len(t, r.files, 1)
}

// TestRequestsThatNginxWasNotToLogAreNotLost turns the log off and on again while nginx runs, or has
// nginx log elsewhere meanwhile.
func TestRequestsThatNginxWasNotToLogAreNotLost(t *testing.T) {
	for name, meanwhile := range map[string]func(*Options){
		"off":       func(o *Options) { o.Requests = nil },
		"elsewhere": func(o *Options) { o.Elsewhere = true },
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now().Add(-time.Hour)
			ended := int64(0)
			opts := Options{Dir: nginxtest.MemoryDir(t), Size: 1 << 20, Reopen: func() error { return nil }}
			opts.Requests = func(context.Context) (Requests, error) { return Requests{"1", began, ended}, nil }

			first, err := New(opts)
			require.NoError(t, err)
			first.losses.lost, first.losses.run = 7, run{id: "1", started: began.UnixMilli()}
			require.NoError(t, first.save())
			kill(first)

			changed := opts
			meanwhile(&changed)
			second, err := New(changed)
			require.NoError(t, err)
			assert.Equal(t, int64(7), second.losses.lost)
			kill(second) // at once: the next one is not told

			ended = 5000
			next, err := New(opts)
			require.NoError(t, err)
			defer kill(next)
			now := time.Now()
			for n := range 20 {
				at := now.Add(time.Duration(n) * time.Second)
				next.losses.add(Requests{"1", began, ended}, at, at.UnixMilli(), 0)
				next.losses.judge(at, at.UnixMilli())
			}
			assert.Equal(t, int64(7), next.losses.lost)
		})
	}
}

func TestASnapshotThatCantBeReadStopsNothing(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"nothing":          func(path string) error { return nil },
		"another version":  func(path string) error { return os.WriteFile(path, []byte(`{"version":99}`+"\n"), 0o600) },
		"no JSON":          func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"counts of a kind": func(path string) error { return os.WriteFile(path, []byte(`{"version":1}`+"\n"), 0o600) },
		"a directory":      func(path string) error { return os.Mkdir(path, 0o755) },
		"a link":           func(path string) error { return os.Symlink("/etc/passwd", path) },
		"positions of others": func(path string) error {
			return os.WriteFile(path, []byte(`{"version":1,"files":[{"inode":1,"pos":7}]}`+"\n"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := nginxtest.MemoryDir(t)
			require.NoError(t, put(snapshotPath(dir)))
			counts := &numbered{}
			r, err := New(Options{Dir: dir, Reopen: func() error { return nil }, Counts: counts})
			require.NoError(t, err)
			defer r.close()
			f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			_, err = f.Write(append(line(tries("web", "10.0.0.1:80", "200", "0.001")), '\n'))
			require.NoError(t, errors.Join(err, f.Close()))
			require.NoError(t, r.poll(t.Context(), counts.take))
			assert.Equal(t, uint64(1), counts.lines)
			next := &numbered{}
			require.NoError(t, func() error {
				r, err := New(Options{Dir: dir, Reopen: func() error { return nil }, Counts: next})
				kill(r)
				return err
			}())
			assert.Equal(t, uint64(1), next.lines)
		})
	}
}
