package daemon

import (
	"os"

	"lbctl/internal/admin"
	"lbctl/internal/statuspage"
)

// newPage makes the status page.
func (p *parts) newPage(cfg Config) *statuspage.Page {
	node, err := os.Hostname()
	if err != nil {
		node = "" // the page is useful without it
	}
	source := statuspage.Source{
		Status:      p.loop.Status,
		Services:    func() []admin.Service { return admin.ServicesOf(p.table.Entries(), p.loop.Pinned()) },
		History:     p.loop.History,
		Connections: p.server.Connections,
		LastErrors:  p.lastErrors,
		NoFigures:   cfg.Nginx.noFigures(p.log != nil),
	}
	if source.NoFigures == "" {
		source.Recent, source.InFlight, source.Log = p.traffic.Overview, p.inFlight, p.log.Stats
	}
	return statuspage.New(statuspage.Options{Source: source, Node: node, Logger: cfg.Logger})
}

// noFigures says why there are no figures of requests, and how to get them; "" if there are.
func (n NginxConfig) noFigures(logs bool) string {
	switch {
	case n.AccessLog == AccessLogOff:
		return "the access log is off (--access-log off); lbctl counts requests with --access-log on, or LBCTL_ACCESS_LOG=on"
	case !logs:
		return "nginx has no access log, because the run directory is not in memory; lbctl counts requests with --access-log-dir DIR on a tmpfs, such as /dev/shm/lbctl"
	default:
		return ""
	}
}

// lastErrors returns the last error of each instance of a service by its endpoint.
func (p *parts) lastErrors(service string) map[string]statuspage.LastError {
	counted, _ := p.traffic.Service(service)
	last := map[string]statuspage.LastError{}
	for _, i := range counted.Instances {
		if i.LastError != "" && i.LastErrorAt.After(last[i.Endpoint].At) {
			last[i.Endpoint] = statuspage.LastError{What: i.LastError, At: i.LastErrorAt}
		}
	}
	return last
}
