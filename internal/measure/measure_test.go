package measure

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDurationsCountEachBucketForItself(t *testing.T) {
	var d Durations
	assert.Equal(t, Histogram{Counts: make([]uint64, len(Bounds)+1)}, d.Histogram(), "nothing was counted")
	for _, took := range []time.Duration{
		-time.Second,          // a clock was set
		10 * time.Millisecond, // a bound belongs to its bucket
		11 * time.Millisecond,
		time.Hour,
	} {
		d.Add(took)
	}
	got := d.Histogram()
	assert.Equal(t, []uint64{1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, got.Counts)
	assert.Equal(t, time.Hour+21*time.Millisecond, got.Sum)
	assert.Equal(t, uint64(4), got.Count())
	d.Add(time.Second)
	assert.Equal(t, uint64(4), got.Count(), "a histogram is a copy")
}
