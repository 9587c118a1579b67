package daemon

import (
	"os"

	"lbctl/internal/history"
	"lbctl/internal/render"
	"lbctl/internal/requestlog"
)

// The values of Config.RequestLogTo.
const (
	RequestLogOff    = "off"
	RequestLogStdout = "stdout"
)

// newRequestLog makes the log of requests and control events.
func (p *parts) newRequestLog(cfg Config, settings render.Settings) {
	opts := cfg.RequestLog
	opts.Index, opts.Logger = p.instances, cfg.Logger
	opts.Events = func() []history.Event { return p.loop.History() }
	if cfg.RequestLogTo == RequestLogStdout {
		opts.Out = os.Stdout
	}
	switch {
	case settings.AccessLogDir == "":
		opts.Note = "there are no requests: nginx has no access log, because its directory is not on a tmpfs (--access-log-dir)"
	case !settings.LogRequests:
		opts.Note = "there are only requests to services with a circuit breaker (--access-log " + AccessLogOff + ")"
	}
	if opts.Out != nil && opts.Note != "" {
		cfg.Logger.Warn("the standard output lacks requests: " + opts.Note)
	}
	p.requests = requestlog.New(opts)
	p.readers = append(p.readers, p.requests.Take)
}
