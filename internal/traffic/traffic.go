// Package traffic counts requests, and sessions of TCP services, by what nginx's access log says of them: by service, route,
// instance and version, with their durations, the tries that failed, and what nginx refused.
//
// The numbers of series are bounded: services and routes are those of the configuration, instances
// those of the endpoint table, and all other values come from short lists. What leaves the table is
// forgotten some minutes later.
package traffic

import (
	"cmp"
	"context"
	"sync"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
)

// DefaultLinger is the default of Options.Linger.
const DefaultLinger = 5 * time.Minute

const (
	// sweepInterval is how often the Counters look for changes of the table.
	sweepInterval = time.Second
	// forgetInterval is how often the Counters look for what left the table so long ago.
	forgetInterval = 10 * time.Second
)

// Table has the services and their instances: an endpoints.Table.
type Table interface{ Entries() []endpoints.Entry }

// Options are the settings of Counters. Table is required.
type Options struct {
	Table Table
	// Addresses returns the IP addresses that nginx has for the host name of an instance, because
	// nginx logs these; default none.
	Addresses func(host string) []string
	// InFlight returns how many requests have begun and not ended, by service; default, and if it
	// returns nil, they are not counted.
	InFlight func() map[string]int64
	// Linger is how long the counts of what has left the table are kept, so that its last requests
	// are read by others too; default DefaultLinger.
	Linger time.Duration
}

// Counters counts requests and sessions. All methods are safe for use by several goroutines.
type Counters struct {
	table     Table
	addresses func(host string) []string
	inFlight  func() map[string]int64
	linger    time.Duration

	mu       sync.Mutex
	services map[string]*service
	unrouted []tally
	// unroutedSessions are sessions that reached no service.
	unroutedSessions sessions
	entries          []endpoints.Entry // that services follow
	step             int64             // the current one of Recent: seconds of unix time / recentSeconds
	all              recent            // of all services together
	forgot           time.Time         // when forget was last called
}

// New makes Counters of the table's services.
func New(opts Options) *Counters {
	c := &Counters{table: opts.Table, addresses: opts.Addresses, inFlight: opts.InFlight, linger: cmp.Or(opts.Linger, DefaultLinger), services: map[string]*service{}}
	if c.addresses == nil {
		c.addresses = func(string) []string { return nil }
	}
	if c.inFlight == nil {
		c.inFlight = func() map[string]int64 { return nil }
	}
	c.follow(time.Now())
	return c
}

// Run follows the table until ctx is done, and returns ctx's error.
func (c *Counters) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			c.sweep(time.Now())
		}
	}
}

// Take counts a request or a session. It does not keep the record. Requests of lbctl itself do not count, and
// neither do those for the health of the services, which are for no service.
func (c *Counters) Take(r *accesslog.Record) { c.take(time.Now(), r) }

func (c *Counters) take(now time.Time, r *accesslog.Record) {
	if r.Internal() || r.Health() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(now)
	s := c.services[string(r.Service)]
	if (s == nil && len(r.Service) > 0 || s != nil && !s.knows(r)) && c.tableHasChanged() {
		c.follow(now) // nginx can be faster than the next sweep
		s = c.services[string(r.Service)]
	}
	if s == nil || r.TCP != (s.family == policy.TCP) { // the service may have had another protocol
		c.countUnrouted(r)
		return
	}
	isRecent := r.Time.Unix()/recentSeconds >= c.step-1
	failed := s.count(r, isRecent)
	switch {
	case isRecent && r.TCP:
		c.all.count(failed)
	case isRecent:
		c.all.observe(r.Took, failed)
	}
}

// countUnrouted counts a request or a session that reached no service, or one that is long gone.
func (c *Counters) countUnrouted(r *accesslog.Record) {
	if r.TCP {
		c.unroutedSessions.count(r)
		return
	}
	status := r.Status
	if r.OwnError > 0 {
		status = r.OwnError // gRPC clients get 200
	}
	c.unrouted = add(c.unrouted, tallyKey{codeClass(status), noStatus}, 1)
}

// tableHasChanged reports whether the table has other entries than those that are followed. Each
// observation makes a new slice.
func (c *Counters) tableHasChanged() bool {
	entries := c.table.Entries()
	return len(entries) != len(c.entries) || len(entries) > 0 && &entries[0] != &c.entries[0]
}

// sweep follows the table, and at times forgets what left it long ago.
func (c *Counters) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(now)
	if c.tableHasChanged() || c.entries == nil {
		c.follow(now)
	} else {
		c.followNames(now)
	}
	if now.Sub(c.forgot) >= forgetInterval {
		c.forgot = now
		c.forget(now)
	}
}

// forget forgets what left the table long ago.
func (c *Counters) forget(now time.Time) {
	for name, s := range c.services {
		if isOver(s.gone, now, c.linger) {
			delete(c.services, name)
			continue
		}
		s.forget(now, c.linger)
	}
}

// isOver reports whether the time is over for which the counts of something are kept that left the
// table at gone; zero: it is still there.
func isOver(gone, now time.Time, linger time.Duration) bool {
	return !gone.IsZero() && now.Sub(gone) >= linger
}
