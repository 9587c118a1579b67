package tracing

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseContext(t *testing.T) {
	t.Parallel()
	c, ok := parseContext([]byte(traceID + " " + parentID + " " + spanID + " 1"))
	require.True(t, ok)
	assert.Equal(t, []string{traceID, parentID, spanID}, []string{hex.EncodeToString(c.trace[:]), hex.EncodeToString(c.parent[:]), hex.EncodeToString(c.span[:])})
	assert.True(t, c.sampled)
	c, ok = parseContext([]byte(traceID + " - " + spanID + " 0"))
	require.True(t, ok)
	assert.Zero(t, c.parent)
	assert.False(t, c.sampled)

	zero := strings.Repeat("0", 32)
	for _, bad := range []string{
		"", "-", traceID, traceID + " - " + spanID, traceID + " - " + spanID + " 2", traceID + " + " + spanID + " 1", traceID + "-- " + spanID + " 1",
		zero + " - " + spanID + " 1", traceID + " - " + zero[:16] + " 1", traceID + " " + zero[:16] + " " + spanID + " 1",
		"g" + traceID[1:] + " - " + spanID + " 1", traceID + " - g" + spanID[1:] + " 1", traceID + " " + parentID + "_" + spanID + " 1", traceID + " - " + spanID + "_1",
	} {
		_, ok := parseContext([]byte(bad))
		assert.False(t, ok, "%q", bad)
	}
}

func TestDerivedIDsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[[8]byte]bool{}
	for a := range byte(100) {
		span := [8]byte{7: a}
		seen[span] = true
		for n := range 20 {
			seen[derived(span, n)] = true
		}
	}
	assert.Len(t, seen, 100*21)
}
