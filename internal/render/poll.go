package render

import (
	"context"
	"fmt"
	"time"
)

// poll reads files at an interval, and passes them to use, until ctx is done or use fails. If they
// can't be read, Status says so under subject, and that those that were read last are used.
func poll[T any](ctx context.Context, s *Source, subject string, interval time.Duration, read func(context.Context) (T, error), use func(T) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		files, err := read(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			err = fmt.Errorf("%w; the %s that were read last are used", err, subject)
		}
		s.setFiles(subject, err)
		if err != nil {
			continue
		}
		if err := use(files); err != nil {
			return err
		}
	}
}
