package nginx

import (
	"fmt"
	"strconv"
	"time"
)

// Started identifies the running nginx, and says when its master process started, to a hundredth of
// a second: nginx counts its connections and requests since then. The error is ErrNotRunning if
// there is no master process.
func (i *Instance) Started() (id string, started time.Time, err error) {
	master := i.master()
	if master == 0 {
		return "", time.Time{}, fmt.Errorf("%w: %s does not name a running nginx", ErrNotRunning, i.pidPath())
	}
	boot := time.Unix(0, 0) // the time of the boot in /proc/stat has whole seconds
	_, at, err := stat(master, boot)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	up, err := sinceBoot()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("read the time since the boot: %w", err)
	}
	after := at.Sub(boot)
	return strconv.Itoa(master) + "-" + strconv.FormatInt(after.Milliseconds(), 10), time.Now().Add(after - up), nil
}
