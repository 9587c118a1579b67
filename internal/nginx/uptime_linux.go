package nginx

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot returns the time since the boot, on the clock of the start times in /proc.
func sinceBoot() (time.Duration, error) {
	var up unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	return time.Duration(up.Nano()), err
}
