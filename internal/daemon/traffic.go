package daemon

import (
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/traffic"
)

// newTraffic makes the counters of requests.
func (p *parts) newTraffic(linger time.Duration) {
	p.traffic = traffic.New(traffic.Options{Table: p.table, Addresses: p.source.Addresses, Linger: linger})
	p.readers = append(p.readers, p.traffic.Take)
}

// take hands a line of the access log to all readers.
func (p *parts) take(r *accesslog.Record) {
	for _, read := range p.readers {
		read(r)
	}
}
