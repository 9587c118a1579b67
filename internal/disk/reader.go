package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrStalled is the error for files whose file system does not answer, as NFS does not
// without its server.
var ErrStalled = errors.New("the file system does not answer")

// stallTimeout is how long a Reader waits for a read.
const stallTimeout = 2 * time.Second

// errWaiting is the error of Read while a read has not ended.
var errWaiting = fmt.Errorf("%w: a read that began more than %s ago has not ended", ErrStalled, stallTimeout)

// A Reader reads files of a file system that may stall. A system call for such a file can't
// be cancelled, so a stalled read goes on alone, and its result is dropped. The zero value is
// ready. Any goroutine may use it.
type Reader[T any] struct {
	mu      sync.Mutex
	stalled <-chan struct{} // closed when the read that was left alone has ended; nil if there is none
}

// Read returns the result of read. It returns ErrStalled if read takes more than two seconds,
// and at once as long as an earlier read has not ended, so at most one read is left alone. It
// returns ctx's error if ctx is done first.
func (r *Reader[T]) Read(ctx context.Context, read func() (T, error)) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var none T
	if r.stalled != nil {
		select {
		case <-r.stalled:
			r.stalled = nil
		default:
			return none, errWaiting
		}
	}
	ended := make(chan struct{})
	var value T
	var err error
	go func() {
		defer close(ended)
		value, err = read()
	}()
	timeout := time.NewTimer(stallTimeout)
	defer timeout.Stop()
	select {
	case <-ended:
		return value, err
	case <-ctx.Done():
		r.stalled = ended
		return none, ctx.Err()
	case <-timeout.C:
		r.stalled = ended
		return none, errWaiting
	}
}
