//go:build !linux

package nginx

import (
	"errors"
	"time"
)

// sinceBoot is for Linux only, like /proc.
func sinceBoot() (time.Duration, error) { return 0, errors.ErrUnsupported }
