// Package requestlog is the log that people read: a line for each request and for each control
// event, as JSON.
//
// A [Log] keeps the last requests in memory, in a compact form and bounded by bytes. Everything
// else reads from there, at its own pace: the writer of the standard output, and the clients of
// 'GET /v1/logs'. So nothing that is slow or broken can delay whoever adds requests. A reader that
// falls behind loses the oldest lines, and learns how many.
package requestlog

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/history"
	"lbctl/internal/instances"
)

// The defaults and bounds of Options.
const (
	// DefaultMemory is enough for some 30,000 requests.
	DefaultMemory = 8 << 20
	// MinMemory is room for thousands of requests: what arrives at once must fit.
	MinMemory = 1 << 20
	// DefaultSlow is the default of Options.Slow.
	DefaultSlow = time.Second
)

// Options are the settings of a Log. Index is required.
type Options struct {
	// Index says which instance an address is.
	Index *instances.Index
	// Events returns the control events that are known, in any order; default none.
	Events func() []history.Event
	// Note says for people which requests are not in the log, and why; default "": all are.
	Note string
	// Memory bounds the requests that are kept, in bytes, at least MinMemory; default
	// DefaultMemory.
	Memory int
	// Out gets each line; default none. A Write may block, and may fail.
	Out io.Writer
	// Sample is the share of requests that Out gets, but for those that failed, were tried again,
	// or were slow: it gets all of these. Default 1.
	Sample float64
	// Slow is the time from which on a request is slow; default DefaultSlow.
	Slow time.Duration
	// Logger gets a warning when lines of Out are lost; default none.
	Logger *slog.Logger
}

// Log is the log. Any goroutine may use it.
type Log struct {
	opts Options
	done chan struct{} // closed when Run ends
	once sync.Once     // closes done

	followers atomic.Int32
	written   atomic.Uint64 // lines, by the writer
	left      atomic.Uint64 // lines that the writer has left out because of Options.Sample

	mu        sync.Mutex
	ring      *ring
	entry     []byte        // scratch
	added     chan struct{} // closed when there is a new entry; nil: nobody waits
	unwritten uint64        // the sequence number of the next entry that the writer reads
	dropped   uint64        // entries that the writer has missed
}

// New makes a Log.
func New(opts Options) *Log {
	opts.Memory = max(cmp.Or(opts.Memory, DefaultMemory), MinMemory)
	opts.Sample = cmp.Or(opts.Sample, 1)
	opts.Slow = cmp.Or(opts.Slow, DefaultSlow)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if opts.Events == nil {
		opts.Events = func() []history.Event { return nil }
	}
	return &Log{opts: opts, done: make(chan struct{}), ring: newRing(opts.Memory)}
}

// Take adds a request, unless lbctl itself has sent it. It does not keep the record.
func (l *Log) Take(r *accesslog.Record) {
	if r.Internal() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry = appendEntry(l.entry[:0], r, l.opts.Index)
	l.add(l.entry)
}

// Event adds a control event.
func (l *Log) Event(e history.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(append([]byte{entryEvent}, eventJSON(e)...))
}

// add adds an entry and wakes those that wait for it. The caller holds mu.
func (l *Log) add(entry []byte) {
	if !l.ring.add(entry) {
		l.opts.Logger.Warn("an entry is too long for the request log", "bytes", len(entry), "most", l.ring.longest())
	}
	if l.added != nil {
		close(l.added)
		l.added = nil
	}
}

// Run writes the lines to Options.Out until ctx is done, and returns ctx's error. Then it ends
// the answers to clients that follow the log.
func (l *Log) Run(ctx context.Context) error {
	defer l.once.Do(func() { close(l.done) })
	if l.opts.Out == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return l.write(ctx)
}

// Stats are numbers of lines since the Log was made.
type Stats struct {
	Written uint64 // to Options.Out
	Sampled uint64 // not written because of Options.Sample
	Dropped uint64 // not written because Options.Out was too slow, or broken
}

// Stats returns the numbers of lines. They are 0 without Options.Out.
func (l *Log) Stats() Stats {
	if l.opts.Out == nil {
		return Stats{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped := l.dropped
	if l.ring.oldest > l.unwritten { // while a Write hangs
		dropped += l.ring.oldest - l.unwritten
	}
	return Stats{Written: l.written.Load(), Sampled: l.left.Load(), Dropped: dropped}
}

// position returns the position after all entries.
func (l *Log) position() cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ring.newest()
}

// read copies the entries at the cursor into b. If there are none, wait is closed when there are.
func (l *Log) read(c *cursor, b []byte) (chunk []byte, missed uint64, wait <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, missed := l.ring.read(c, b)
	if n == 0 {
		if l.added == nil {
			l.added = make(chan struct{})
		}
		wait = l.added
	}
	return b[:n], missed, wait
}

// item is a line that is not written yet: the entry of a request, or an event.
type item struct {
	time  time.Time
	entry []byte
	event history.Event
}

// appendTo appends the line with a line feed.
func (i *item) appendTo(b []byte, r *request) []byte {
	if i.entry != nil {
		r.decode(i.entry)
		return appendJSON(b, r, 0)
	}
	return append(append(b, eventJSON(i.event)...), '\n')
}

// disorder is how many requests may come between two that are not in the order of time: each of
// nginx's workers writes its lines when it has some, and after 200 ms.
const disorder = 1000

// last returns the last lines that match, at most limit, the oldest first. end is the position
// after them, and known are the events before it: some of them may come again after end.
func (l *Log) last(f *Filter, limit int) (items []item, end cursor, known []history.Event) {
	end = l.position()
	// An event is in Events before it is added here. So one that is added after end may be among
	// these, but none is missing.
	known = l.opts.Events()
	if limit == 0 {
		return nil, end, known
	}
	for _, e := range known {
		if f.matchesEvent(&e) {
			items = append(items, item{time: e.Time, event: e})
		}
	}
	var r request
	for _, entry := range l.lastRequests(f, limit+disorder, end) {
		r.decode(entry)
		items = append(items, item{time: r.time, entry: entry})
	}
	slices.SortStableFunc(items, func(a, b item) int { return a.time.Compare(b.time) })
	return items[max(0, len(items)-limit):], end, known
}

// lastRequests returns the entries of the last requests before end that match, at most limit.
func (l *Log) lastRequests(f *Filter, limit int, end cursor) [][]byte {
	if !f.wantsRequests() {
		return nil
	}
	var found [][]byte // a circle once it has limit of them
	oldest := 0
	var r request
	buffer := make([]byte, readSize)
	c := cursor{} // what is gone is skipped
	for {
		chunk, _, _ := l.read(&c, buffer)
		if len(chunk) == 0 {
			break
		}
		for {
			entry, rest, ok := c.cut(chunk)
			if !ok || c.at > end.at {
				break
			}
			chunk = rest
			if entry[0] != entryRequest {
				continue
			}
			if r.decode(entry); !f.matches(&r) {
				continue
			}
			if len(found) < limit {
				found = append(found, slices.Clone(entry))
				continue
			}
			found[oldest] = append(found[oldest][:0], entry...)
			oldest = (oldest + 1) % limit
		}
		if c.at >= end.at {
			break
		}
	}
	return append(found[oldest:], found[:oldest]...)
}
