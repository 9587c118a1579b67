// Package measure counts durations, for metrics. It knows nothing of how they are exposed.
package measure

import (
	"slices"
	"sync"
	"time"
)

// Bounds are the upper bounds of the buckets of Durations, in seconds.
var Bounds = []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Durations counts durations by size. The zero value is ready; any goroutine may use it.
type Durations struct {
	mu     sync.Mutex
	counts []uint64
	sum    time.Duration
}

// Histogram is what Durations has counted.
type Histogram struct {
	// Counts has the number of durations of each bucket, those of smaller buckets not included:
	// one number for each of Bounds, and one for what is longer.
	Counts []uint64
	Sum    time.Duration
}

// Add counts a duration. A negative one, as after a clock was set, counts as 0.
func (d *Durations) Add(took time.Duration) {
	took = max(took, 0)
	bucket, _ := slices.BinarySearch(Bounds, took.Seconds())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = make([]uint64, len(Bounds)+1)
	}
	d.counts[bucket]++
	d.sum += took
}

// Histogram returns what was counted so far.
func (d *Durations) Histogram() Histogram {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		return Histogram{Counts: make([]uint64, len(Bounds)+1)}
	}
	return Histogram{Counts: slices.Clone(d.counts), Sum: d.sum}
}

// Count returns the number of all durations.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}
