package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/render"
	"lbctl/internal/traffic"
)

// newTraffic makes the counters of requests.
func (p *parts) newTraffic(linger time.Duration) {
	p.traffic = traffic.New(traffic.Options{Table: p.table, Addresses: p.source.Addresses, Linger: linger})
	p.readers = append(p.readers, p.traffic.Take)
}

// openAccessLog opens nginx's access log, and restores the counts of requests. Call it after
// newTraffic.
func (p *parts) openAccessLog(cfg Config, settings render.Settings) error {
	if settings.AccessLogDir == "" {
		return nil
	}
	opts := accesslog.Options{
		Dir: settings.AccessLogDir, Size: cfg.Nginx.AccessLogSize, Reopen: p.server.ReopenLogs, Counts: p.traffic, Logger: cfg.Logger,
	}
	if settings.LogRequests {
		opts.Requests = p.countedByNginx
	}
	var err error
	if p.log, err = accesslog.New(opts); err != nil {
		return fmt.Errorf("%w; choose another directory with --access-log-dir", err)
	}
	return nil
}

// countedByNginx asks nginx for its requests.
func (p *parts) countedByNginx(ctx context.Context) (accesslog.Requests, error) {
	run, started, err := p.server.Started()
	if err != nil {
		return accesslog.Requests{}, err
	}
	c, err := p.server.Connections(ctx)
	if err != nil {
		return accesslog.Requests{}, err
	}
	again, _, err := p.server.Started()
	if err == nil && again != run {
		err = errors.New("nginx restarted while it was asked")
	}
	if err != nil {
		return accesslog.Requests{}, err
	}
	const question = 1 // it is one of those that nginx is writing
	return accesslog.Requests{Run: run, Started: started, Ended: c.Requests - c.Reading - (c.Writing - question)}, nil
}

// liveTimeout is how long the access log waits for Consul's first answer.
const liveTimeout = 10 * time.Second

// readAccessLog hands the lines of the access log to all readers, until ctx is done. It begins when
// the table knows all services: lbctl may have been killed before the snapshot had the newest ones.
// While Consul is away the snapshot must do.
func (p *parts) readAccessLog(ctx context.Context) error {
	ticker := time.NewTicker(liveTimeout / 200)
	defer ticker.Stop()
	for begin := time.Now(); !p.table.Live() && time.Since(begin) < liveTimeout; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return p.log.Run(ctx, p.take)
}

// take hands a line of the access log to all readers.
func (p *parts) take(r *accesslog.Record) {
	for _, read := range p.readers {
		read(r)
	}
}
