package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/disk"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/traffic"
)

// newTraffic makes the counters of requests.
func (p *parts) newTraffic(linger time.Duration) {
	p.traffic = traffic.New(traffic.Options{Table: p.table, Addresses: p.source.Addresses, InFlight: p.inFlight, Linger: linger})
	p.readers = append(p.readers, p.traffic.Take)
}

// inFlight returns how many requests have begun and not ended, by service; nil: they are not counted.
func (p *parts) inFlight() map[string]int64 {
	if p.log == nil {
		return nil
	}
	return p.log.InFlight()
}

// openAccessLog opens nginx's access log, and restores the counts of requests. Call it after
// newTraffic.
func (p *parts) openAccessLog(cfg Config, settings render.Settings) error {
	if cfg.Nginx.InFlight == InFlightOn && !settings.InFlight {
		return errors.New("--requests-in-flight on: requests are counted by nginx's log of them, want --access-log on, and --access-log-dir on a tmpfs")
	}
	note := filepath.Join(cfg.RunDir, accessLogNote)
	if settings.AccessLogDir == "" {
		noteAccessLog(note, "", cfg.Logger)
		return nil
	}
	opts := accesslog.Options{
		Dir: settings.AccessLogDir, Size: cfg.Nginx.AccessLogSize, Reopen: p.server.ReopenLogs, Counts: p.traffic, Logger: cfg.Logger,
		Elsewhere: wasElsewhere(note, settings.AccessLogDir), InFlight: settings.InFlight, Started: nginx.ProcessStarted,
	}
	if settings.LogRequests {
		opts.Requests = p.countedByNginx
	}
	var err error
	if p.log, err = accesslog.New(opts); err != nil {
		return fmt.Errorf("%w; choose another directory with --access-log-dir", err)
	}
	noteAccessLog(note, settings.AccessLogDir, cfg.Logger)
	return nil
}

// accessLogNote is the file of the run directory that says where the last lbctl had nginx log. An
// operator can choose another directory and come back, all in one run of nginx.
const accessLogNote = "accesslog.dir"

// wasElsewhere reports whether the last lbctl had nginx log to another directory, or not at all.
func wasElsewhere(note, dir string) bool {
	last, err := disk.ReadFile(note, 4096)
	return err == nil && string(last) != dir // the first lbctl that notes it finds no note
}

// noteAccessLog writes the note. Without one, as on a full disk, requests may look lost later: that is
// no reason to stop.
func noteAccessLog(note, dir string, logger *slog.Logger) {
	if last, err := disk.ReadFile(note, 4096); err == nil && string(last) == dir {
		return
	}
	aside, err := disk.Clear(note)
	if err == nil {
		err = disk.Replace(note, []byte(dir))
	}
	if err != nil || aside != "" {
		logger.Warn("the note of where nginx logs requests could not be read or written", "path", note, "now", aside, "error", err)
	}
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
