package requestlog

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Readers of different speed get each entry unchanged and in order, and learn exactly how many
// they have missed.
func TestRing(t *testing.T) {
	r := newRing(64 << 10)
	chance := rand.New(rand.NewPCG(1, 2))
	entryOf := func(n uint64) []byte {
		entry := make([]byte, 8+n%997)
		for i := range entry {
			entry[i] = byte(n >> (i % 8 * 8))
		}
		return entry
	}
	type reader struct {
		at   cursor
		next uint64
		lost uint64
		slow float64
	}
	readers := []*reader{{slow: 0}, {slow: 0.9}, {slow: 0.999}}
	buffer := make([]byte, readSize)
	const entries = 20_000
	for n := range uint64(entries) {
		require.True(t, r.add(entryOf(n)))
		for _, reader := range readers {
			if chance.Float64() < reader.slow {
				continue
			}
			read, missed := r.read(&reader.at, buffer[:1<<10+chance.IntN(8<<10)])
			reader.next += missed
			reader.lost += missed
			for chunk := buffer[:read]; ; {
				entry, rest, ok := reader.at.cut(chunk)
				if !ok {
					break
				}
				require.Equal(t, entryOf(reader.next), entry)
				reader.next++
				chunk = rest
			}
		}
	}
	assert.Zero(t, readers[0].lost)
	assert.Equal(t, uint64(entries), readers[0].next)
	assert.NotZero(t, readers[2].lost)
	assert.LessOrEqual(t, r.end-r.start, uint64(len(r.memory)))
	assert.False(t, r.add(make([]byte, r.longest()+1)))
}
