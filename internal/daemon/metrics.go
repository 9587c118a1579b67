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
	return metrics.New(opts)
}
