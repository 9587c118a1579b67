package nginx

import (
	"fmt"
	"time"
)

// Marks says when nginx itself marks a server of an upstream as failed and skips it for
// a while. The zero value is never: lbctl's probes eject instances instead, because a
// single request that makes every instance close the connection would mark them all.
type Marks struct {
	MaxFails    int           // failed attempts within FailTimeout that mark a server; 0: never
	FailTimeout time.Duration // also how long it stays marked; rounded up to seconds; default DefaultFailTimeout
}

// DefaultFailTimeout is the default of Marks.FailTimeout.
const DefaultFailTimeout = 2 * time.Second

// String returns the parameters for nginx's server directive.
func (m Marks) String() string {
	if m.MaxFails == 0 {
		return "max_fails=0"
	}
	if m.FailTimeout == 0 {
		m.FailTimeout = DefaultFailTimeout
	}
	seconds := (m.FailTimeout + time.Second - 1) / time.Second // nginx accepts whole seconds only
	return fmt.Sprintf("max_fails=%d fail_timeout=%ds", m.MaxFails, seconds)
}
