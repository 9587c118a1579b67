package requestlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/history"
)

// output is a standard output that can be broken.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	write func(p []byte) (int, error) // in place of a good Write; nil: none
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	write := o.write
	o.mu.Unlock()
	n, err := len(p), error(nil)
	if write != nil {
		n, err = write(p)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p[:n])
	return n, err
}

// String is all that was written.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) breakWith(write func(p []byte) (int, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.write = write
}

// lines returns what was written, which must be complete lines.
func (o *output) lines(t *testing.T) (all []Line) {
	t.Helper()
	for text := range strings.Lines(o.String()) {
		var line Line
		require.NoError(t, json.Unmarshal([]byte(text), &line), "%q", text)
		all = append(all, line)
	}
	return all
}

// run runs a log that writes to out, until the test ends.
func run(t *testing.T, out *output, opts Options) *Log {
	t.Helper()
	opts.Out = out
	l := newLog(t, opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.ErrorIs(t, <-done, context.Canceled)
	})
	synctest.Wait()
	return l
}

// take takes n requests with the paths /FROM, /FROM+1 ...
func take(l *Log, from, n int) {
	for i := range n {
		l.Take(with(func(r *accesslog.Record) { r.Path = fmt.Appendf(nil, "/%d", from+i) }))
	}
}

func TestEachLineIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		longest := 0
		out.breakWith(func(p []byte) (int, error) {
			longest = max(longest, len(p))
			return len(p), nil
		})
		l := run(t, &out, Options{})
		take(l, 0, 100)
		l.Event(history.Event{Time: noon, Kind: history.Applied, Generation: 7, Change: "größer\x1b +1"})
		time.Sleep(time.Second)
		take(l, 100, 1)
		time.Sleep(time.Second)
		all := out.lines(t)
		require.Len(t, all, 102)
		assert.Equal(t, "GET /0 200", all[0].Msg)
		assert.Equal(t, "configuration applied", all[100].Msg)
		assert.Equal(t, "größer\x1b +1", all[100].Change)
		assert.Equal(t, "GET /100 200", all[101].Msg)
		assert.Equal(t, Stats{Written: 102}, l.Stats())
		assert.LessOrEqual(t, longest, atomicWrite, "lines of several processes can't mix in a pipe")
		assert.NotContains(t, out.String(), "\u00f6", "ASCII")
	})
}

func TestAnOutputThatHangsDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var log output
		hang := make(chan struct{})
		out.breakWith(func(p []byte) (int, error) { <-hang; return len(p), nil })
		l := run(t, &out, Options{Memory: MinMemory, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		take(l, 0, 1)
		time.Sleep(time.Second) // the writer hangs with the first one
		const n = 20_000
		take(l, 1, n)
		dropped := l.Stats().Dropped
		assert.Greater(t, dropped, uint64(n/2), "told although the writer hangs")
		time.Sleep(toldEvery)
		assert.Contains(t, log.String(), "the request log has lost lines")
		assert.Contains(t, log.String(), fmt.Sprintf("lines=%d", dropped))

		out.breakWith(nil)
		close(hang)
		time.Sleep(time.Second)
		all := out.lines(t)
		require.Equal(t, TypeDropped, all[1].Type)
		assert.Equal(t, dropped, all[1].Dropped)
		assert.Equal(t, n+1, len(all)-1+int(all[1].Dropped), "each line is written or counted")
		assert.Equal(t, fmt.Sprintf("GET /%d 200", n), all[len(all)-1].Msg)
		assert.Equal(t, dropped, l.Stats().Dropped)
	})
}

func TestRunEndsAlthoughTheOutputHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		hang := make(chan struct{})
		out.breakWith(func(p []byte) (int, error) { <-hang; return len(p), nil })
		l := newLog(t, Options{Out: &out})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		take(l, 0, 1)
		time.Sleep(time.Second)
		cancel()
		began := time.Now()
		require.ErrorIs(t, <-done, context.Canceled)
		assert.Equal(t, lastWrite, time.Since(began))
		close(hang)
	})
}

func TestAnOutputThatFailsGetsNoHalfLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var log output
		full := errors.New("no space left")
		out.breakWith(func(p []byte) (int, error) { return min(len(p), 100), full })
		l := run(t, &out, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		take(l, 0, 50)
		time.Sleep(3 * retryWrite)
		out.breakWith(nil)
		take(l, 50, 1)
		time.Sleep(2 * retryWrite)
		all := out.lines(t)
		require.Len(t, all, 51, "nothing is lost")
		for n, line := range all {
			assert.Equal(t, fmt.Sprintf("GET /%d 200", n), line.Msg)
		}
		assert.Equal(t, 1, strings.Count(log.String(), "can't be written"), "it is told once")
		assert.Equal(t, Stats{Written: 51}, l.Stats())
	})
}

func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := run(t, &out, Options{Sample: 0.1, Slow: time.Second})
		const n = 2000
		for range n {
			l.Take(get())
			l.Take(records["a second try"])
			l.Take(records["no instance"])
			l.Take(with(func(r *accesslog.Record) { r.Took, r.Path = time.Second, []byte("/slow") }))
			l.Take(with(func(r *accesslog.Record) { r.Service, r.GRPCStatus, r.Path = []byte("cart"), 2, []byte("/c.C/C") }))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		counts := map[string]int{}
		for _, line := range out.lines(t) {
			key := line.Msg
			if len(line.Tries) > 1 {
				key += " again"
			}
			if line.SampleRatio != 0 {
				key += fmt.Sprintf(" of %g", line.SampleRatio)
			}
			counts[key]++
		}
		sampled := counts["GET /api/items 200 of 0.1"]
		assert.InDelta(t, n/10, sampled, n/20)
		delete(counts, "GET /api/items 200 of 0.1")
		assert.Equal(t, map[string]int{"GET /api/items 200 again": n, "GET /api/items 503": n, "GET /slow 200": n, "/c.C/C UNKNOWN": n}, counts)
		assert.Equal(t, Stats{Written: uint64(4*n + sampled), Sampled: uint64(n - sampled)}, l.Stats())
		assert.Len(t, lines(t, l, Filter{}, MaxLimit), 5*n, "lbctl logs has all")
	})
}

// TestRoomIsKept has lbctl's own log in the same pipe or socket, as in a container and with
// systemd, and nobody reads it.
func TestRoomIsKept(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func() (reader, writer *os.File, err error)
	}{{"a pipe", os.Pipe}, {"a socket", socketPair}} {
		t.Run(kind.name, func(t *testing.T) {
			reader, writer, err := kind.make()
			require.NoError(t, err)
			defer reader.Close()
			defer writer.Close()
			if roomIn(writer) == nil {
				t.Skip("nothing says how full it is")
			}
			l := newLog(t, Options{Out: writer})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			next := 0
			require.Eventually(t, func() bool { // until the writer has begun, its lines are before it
				take(l, next, 1000)
				next += 1000
				return l.Stats().Written > 0 && !roomIn(writer)()
			}, 10*time.Second, 10*time.Millisecond, "half of it is full")
			log := slog.New(slog.NewTextHandler(writer, nil))
			for range 100 {
				log.Info("a change that is logged", "and", "does not wait") // would hang here
			}
			cancel()
			assert.ErrorIs(t, <-done, context.Canceled)
			require.NoError(t, writer.Close())
			all, err := io.ReadAll(reader)
			require.NoError(t, err)
			for line := range strings.Lines(string(all)) {
				assert.True(t, strings.HasPrefix(line, "time=") || json.Valid([]byte(line)), "%q", line)
			}
			assert.Equal(t, 100, strings.Count(string(all), "does not wait"))
		})
	}
}

func socketPair() (reader, writer *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer"), nil
}
