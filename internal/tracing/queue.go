package tracing

import (
	"sync"

	"lbctl/internal/accesslog"
)

// maxWaiting is how many requests may wait to be sent. With the longest host and path each needs
// some 2 KiB, so all need 8 MiB at most, and usually a quarter of that.
const maxWaiting = 4096

// queue has copies of the records of sampled requests. It uses their memory again.
type queue struct {
	full chan struct{} // has a value if a batch waits

	mu      sync.Mutex
	waiting []entry // its capacity beyond the length has the memory of entries that were sent
	spare   []entry
}

// entry is a record with its own memory.
type entry struct {
	accesslog.Record
	text []byte // what the record's slices are parts of
}

// add copies the record into the queue. It returns false if the queue is full.
func (q *queue) add(r *accesslog.Record) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.waiting)
	if n >= maxWaiting {
		return false
	}
	if n < cap(q.waiting) {
		q.waiting = q.waiting[:n+1]
	} else {
		q.waiting = append(q.waiting, entry{})
	}
	q.waiting[n].set(r)
	if n+1 == batchSize {
		select {
		case q.full <- struct{}{}:
		default:
		}
	}
	return true
}

// take returns all records of the queue. They are valid until the next call.
func (q *queue) take() []entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.waiting
	q.waiting, q.spare = q.spare[:0], taken
	return taken
}

// set makes the entry a copy of the record.
func (e *entry) set(r *accesslog.Record) {
	tries := append(e.Tries[:0], r.Tries...)
	e.Record, e.Tries = *r, tries
	e.text = e.text[:0]
	texts := [...]*[]byte{&e.Service, &e.Route, &e.Method, &e.Host, &e.Path, &e.Client, &e.RequestID, &e.Trace}
	size := 0
	for _, text := range texts {
		size += len(*text)
	}
	for n := range tries {
		size += len(tries[n].Address)
	}
	if cap(e.text) < size {
		e.text = make([]byte, 0, size)
	}
	for _, text := range texts {
		*text = e.keep(*text)
	}
	for n := range tries {
		tries[n].Address = e.keep(tries[n].Address)
	}
}

// keep returns a copy of a text. There must be room for it.
func (e *entry) keep(text []byte) []byte {
	from := len(e.text)
	e.text = append(e.text, text...)
	return e.text[from:len(e.text):len(e.text)]
}
