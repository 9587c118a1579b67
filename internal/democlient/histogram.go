package democlient

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width is less than 1% of their durations, so
// that a long run needs no more memory than a short one. The zero value is empty.
type histogram struct {
	counts   [64 << bucketBits]int
	total    int
	min, max time.Duration
}

// A power of two is divided into 1<<bucketBits buckets of equal width.
const bucketBits = 7

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	if h.total == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.counts[bucket(d)]++
	h.total++
}

// percentile returns a duration that p percent of the added ones do not exceed: the upper end
// of the bucket of the nearest rank. p is from 1 to 100.
func (h *histogram) percentile(p int) time.Duration {
	rank := (h.total*p + 99) / 100
	for i, n := range h.counts {
		if rank -= n; rank <= 0 {
			return max(h.min, min(h.max, upperEnd(i)))
		}
	}
	return h.max
}

// summary returns nil if the histogram is empty.
func (h *histogram) summary() *latency {
	if h.total == 0 {
		return nil
	}
	return &latency{
		Min: milliseconds(h.min),
		P50: milliseconds(h.percentile(50)),
		P90: milliseconds(h.percentile(90)),
		P99: milliseconds(h.percentile(99)),
		Max: milliseconds(h.max),
	}
}

// bucket returns the number of a duration's bucket. The first 1<<bucketBits nanoseconds have
// a bucket each; above, a bucket has the durations with the same highest bucketBits+1 bits.
func bucket(d time.Duration) int {
	n := uint64(d)
	shift := max(0, bits.Len64(n)-bucketBits-1)
	return shift<<bucketBits + int(n>>shift)
}

// upperEnd returns the longest duration of the bucket.
func upperEnd(i int) time.Duration {
	shift := max(0, i>>bucketBits-1)
	n := i - shift<<bucketBits
	return time.Duration((uint64(n)+1)<<shift - 1)
}

func milliseconds(d time.Duration) float64 {
	return rounded(float64(d) / float64(time.Millisecond))
}
