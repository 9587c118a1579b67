package nginx

import (
	"fmt"
	"time"
)

// Marks says when nginx itself takes a server of an upstream for failed, and sends
// it nothing for a while. The zero value is never: lbctl's probes judge instances,
// while a request that every instance breaks off would mark them all.
type Marks struct {
	MaxFails    int           // failed attempts within FailTimeout that mark a server; 0 for never
	FailTimeout time.Duration // and how long it stays marked, rounded up to seconds; default DefaultFailTimeout
}

// DefaultFailTimeout is FailTimeout where nothing is said.
const DefaultFailTimeout = 2 * time.Second

// String is the parameters of nginx's directive server.
func (m Marks) String() string {
	if m.MaxFails == 0 {
		return "max_fails=0"
	}
	if m.FailTimeout == 0 {
		m.FailTimeout = DefaultFailTimeout
	}
	seconds := (m.FailTimeout + time.Second - 1) / time.Second // nginx takes no fraction
	return fmt.Sprintf("max_fails=%d fail_timeout=%ds", m.MaxFails, seconds)
}
