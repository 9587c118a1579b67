package traffic

import (
	"math"
	"math/bits"
	"time"
)

// Buckets are the upper bounds of a Histogram's buckets, in seconds. nginx measures milliseconds.
var Buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}

// SessionBuckets are Buckets for the durations of TCP sessions, which may take days.
var SessionBuckets = []float64{.001, .005, .025, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400}

// numBuckets is the length of Buckets and of SessionBuckets.
const numBuckets = 14

// bounds are Buckets as durations, and sessionBounds SessionBuckets.
var bounds, sessionBounds = boundsOf(Buckets), boundsOf(SessionBuckets)

func boundsOf(buckets []float64) (d [numBuckets]time.Duration) {
	for n, seconds := range buckets {
		d[n] = time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	}
	return d
}

// durations is a histogram of durations.
type durations struct {
	counts [numBuckets + 1]uint64
	sum    uint64 // milliseconds
}

func (h *durations) observe(d time.Duration, bounds *[numBuckets]time.Duration) {
	n := 0
	for n < numBuckets && d > bounds[n] {
		n++
	}
	h.counts[n]++
	h.sum += uint64(d.Milliseconds())
}

// shown returns the histogram for others.
func (h *durations) shown() Histogram {
	return Histogram{Counts: append([]uint64(nil), h.counts[:]...), Sum: float64(h.sum) / 1000}
}

// fine is a histogram with buckets of a millisecond up to 16 ms, and of a quarter of a power of two
// above, up to four hours. Its quantiles are right to an eighth.
type fine [fineLinear + fineOctaves*4]uint32

const (
	fineLinear  = 16
	fineOctaves = 20
)

func (h *fine) observe(d time.Duration) {
	ms := uint(max(0, d.Milliseconds()))
	n := int(ms)
	if ms >= fineLinear {
		octave := bits.Len(ms) - 5 // 0 for 16 to 31
		n = min(fineLinear+octave*4+int(ms>>(octave+2)&3), len(h)-1)
	}
	h[n]++
}

// lower returns the lower bound of the nth bucket, in milliseconds.
func (h *fine) lower(n int) float64 {
	if n < fineLinear {
		return float64(n)
	}
	octave, quarter := (n-fineLinear)/4, (n-fineLinear)%4
	return math.Ldexp(float64(4+quarter), octave+2)
}

// total returns the number of durations.
func (h *fine) total() (n uint64) {
	for _, count := range h {
		n += uint64(count)
	}
	return n
}

// add adds another histogram.
func (h *fine) add(o *fine) {
	for n, count := range o {
		h[n] += count
	}
}

// quantile returns a quantile in seconds, -1 if there is no duration. Within a bucket it
// interpolates.
func (h *fine) quantile(q float64) float64 {
	total := h.total()
	if total == 0 {
		return -1
	}
	rank, seen := q*float64(total), 0.0
	for n, count := range h {
		if count == 0 || seen+float64(count) < rank {
			seen += float64(count)
			continue
		}
		low, high := h.lower(n), h.lower(n+1)
		return (low + (high-low)*(rank-seen)/float64(count)) / 1000
	}
	return h.lower(len(h)) / 1000
}
