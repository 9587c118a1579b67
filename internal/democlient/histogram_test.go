package democlient

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPercentilesAreExactToOnePercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 10, 99, 100, 101, 10_000} {
		var h histogram
		var all []time.Duration
		for range n {
			d := time.Duration(math.Exp(random.Float64() * math.Log(float64(time.Hour)))) // 1ns to 1h
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		assert.Equal(t, all[0], h.min)
		assert.Equal(t, all[n-1], h.max)
		for _, p := range []int{1, 50, 90, 99, 100} {
			want := all[(n*p+99)/100-1]
			assert.InEpsilon(t, want, h.percentile(p), 0.01, "p%d of %d", p, n)
			assert.GreaterOrEqual(t, h.percentile(p), want, "p%d of %d", p, n)
		}
	}
}

func TestEveryDurationHasABucket(t *testing.T) {
	previous := -1
	for _, d := range []time.Duration{0, 1, 127, 128, 255, 256, 257, time.Second, time.Hour, math.MaxInt64} {
		i := bucket(d)
		assert.GreaterOrEqual(t, i, previous)
		assert.Less(t, i, len(histogram{}.counts))
		assert.GreaterOrEqual(t, upperEnd(i), d)
		assert.Equal(t, i, bucket(upperEnd(i)), "the upper end of %v's bucket is in it", d)
		previous = i
	}
}

func TestEmptyAndNegative(t *testing.T) {
	var h histogram
	assert.Nil(t, h.summary())
	h.add(-time.Second)
	assert.Equal(t, &latency{}, h.summary())
}
