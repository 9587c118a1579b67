package daemon

import (
	"net/http"

	"lbctl/internal/metrics"
)

// metrics exposes what all parts do.
func (p *parts) metrics(cfg Config) http.Handler {
	opts := metrics.Options{
		Version:  cfg.Version,
		Loop:     p.loop,
		Services: p.table,
		Nginx:    p.server,
		Logger:   cfg.Logger,
	}
	if p.byReload == "" {
		opts.Deliveries = p.resolver
	}
	if p.log != nil {
		opts.Log = p.log
	}
	if p.log != nil && cfg.Nginx.AccessLog != AccessLogOff { // otherwise some services would have wrong numbers
		opts.Traffic = p.traffic
	}
	if p.traces != nil {
		opts.Traces = p.traces
	}
	if cfg.RequestLogTo == RequestLogStdout {
		opts.RequestLog = p.requests
	}
	return metrics.New(opts)
}
