package disk

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReaderLeavesAStalledReadAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reader Reader[string]
		var reads atomic.Int32
		unblock := make(chan struct{})
		stall := func() (string, error) { reads.Add(1); <-unblock; return "late", nil }
		answer := func() (string, error) { reads.Add(1); return "content", nil }

		began := time.Now()
		_, err := reader.Read(t.Context(), stall)
		require.ErrorIs(t, err, ErrStalled)
		assert.Equal(t, stallTimeout, time.Since(began))
		_, again := reader.Read(t.Context(), answer)
		assert.EqualError(t, again, err.Error(), "one problem, not one for each read")
		assert.Equal(t, stallTimeout, time.Since(began), "the second call does not wait")
		assert.Equal(t, int32(1), reads.Load(), "the second call does not read")

		close(unblock)
		synctest.Wait()
		content, err := reader.Read(t.Context(), answer)
		require.NoError(t, err)
		assert.Equal(t, "content", content)
	})
}

func TestReaderEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reader Reader[string]
		ctx, cancel := context.WithCancel(t.Context())
		unblock := make(chan struct{})
		began := time.Now()
		_, err := reader.Read(ctx, func() (string, error) { cancel(); <-unblock; return "", nil })
		assert.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, time.Since(began))
		close(unblock)
	})
}
