package requestlog

import (
	"bytes"
	"context"
	"math/rand/v2"
	"time"
)

const (
	// gather is how long a reader waits for more after the first new entry: requests come in
	// batches, as nginx writes them.
	gather = 20 * time.Millisecond
	// atomicWrite is how much can be written into a pipe without another process's lines in
	// between (PIPE_BUF).
	atomicWrite = 4096
	// retryWrite is the pause after a failed write.
	retryWrite = time.Second
	// roomAgain is the pause until a pipe may have room.
	roomAgain = 5 * time.Millisecond
	// lastWrite is how long Run waits for the last lines to be written.
	lastWrite = time.Second
	// toldEvery is how often lost lines are logged at most.
	toldEvery = 10 * time.Second
)

// write writes the lines to Out until ctx is done, and returns ctx's error. It does not wait for
// a Write that hangs.
func (l *Log) write(ctx context.Context) error {
	w := &writer{log: l, at: l.position(), chunk: make([]byte, readSize), hasRoom: roomIn(l.opts.Out)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx)
	}()
	l.tell(ctx)
	select {
	case <-ended:
	case <-time.After(lastWrite):
	}
	return ctx.Err()
}

// tell logs how many lines were lost, until ctx is done.
func (l *Log) tell(ctx context.Context) {
	for told := uint64(0); sleep(ctx, toldEvery); {
		if dropped := l.Stats().Dropped; dropped > told {
			l.opts.Logger.Warn("the request log has lost lines: its output is too slow, or does not take them", "lines", dropped-told, "total", dropped)
			told = dropped
		}
	}
}

// writer writes the entries to Out.
type writer struct {
	log     *Log
	at      cursor
	chunk   []byte
	request request
	lines   []byte      // complete lines that are not written yet, but for the rest of the first one
	failed  bool        // the last Write
	hasRoom func() bool // nil: a Write may wait
}

func (w *writer) run(ctx context.Context) {
	for {
		chunk, missed, wait := w.log.read(&w.at, w.chunk)
		if missed > 0 {
			w.lines = append(append(w.lines, droppedJSON(time.Now().UTC(), missed)...), '\n')
		}
		w.add(chunk)
		w.log.hasRead(w.at.next, missed)
		for len(w.lines) > 0 && !w.flush(ctx) {
			// New entries wait in the ring, which drops the oldest ones.
			if !sleep(ctx, retryWrite) {
				return
			}
		}
		if wait == nil {
			continue
		}
		select {
		case <-wait:
			sleep(ctx, gather)
		case <-ctx.Done():
			return
		}
	}
}

// hasRead notes that the writer has all entries before the sequence number next, but for those
// that it has missed.
func (l *Log) hasRead(next, missed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped += missed
	l.unwritten = next
}

// sleep waits for d. It reports false if ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// add makes the lines of the entries in a chunk.
func (w *writer) add(chunk []byte) {
	for {
		entry, rest, ok := w.at.cut(chunk)
		if !ok {
			return
		}
		chunk = rest
		if entry[0] == entryEvent {
			w.lines = append(append(w.lines, entry[1:]...), '\n')
			continue
		}
		w.request.decode(entry)
		ratio := 0.0
		if w.log.sampled(&w.request) {
			ratio = w.log.opts.Sample
			if rand.Float64() >= ratio {
				w.log.left.Add(1)
				continue
			}
		}
		w.lines = appendJSON(w.lines, &w.request, ratio)
	}
}

// sampled reports whether Out gets only a share of such requests.
func (l *Log) sampled(r *request) bool {
	return l.opts.Sample < 1 && !r.failed() && len(r.tries) < 2 && r.took < l.opts.Slow
}

// flush writes the lines. What could not be written stays, so that a line is never cut. It
// reports false if a Write failed, or if ctx is done before there was room.
func (w *writer) flush(ctx context.Context) bool {
	for rest := w.lines; len(rest) > 0; {
		for w.hasRoom != nil && !w.hasRoom() {
			if !sleep(ctx, roomAgain) {
				w.lines = w.lines[:copy(w.lines, rest)]
				return false
			}
		}
		n, err := w.log.opts.Out.Write(rest[:writable(rest)])
		w.log.written.Add(uint64(bytes.Count(rest[:n], []byte{'\n'})))
		rest = rest[n:]
		if err != nil {
			if !w.failed {
				w.log.opts.Logger.Warn("the request log can't be written", "error", err)
			}
			w.failed = true
			w.lines = w.lines[:copy(w.lines, rest)]
			return false
		}
	}
	w.failed, w.lines = false, w.lines[:0]
	return true
}

// writable is how much of some lines to write at once: as many lines as go into a pipe together.
func writable(lines []byte) int {
	if n := bytes.LastIndexByte(lines[:min(len(lines), atomicWrite)], '\n'); n >= 0 {
		return n + 1
	}
	return bytes.IndexByte(lines, '\n') + 1 // a long line
}
