package metrics

import (
	"context"

	"lbctl/internal/controller"
	"lbctl/internal/nginx"
)

// Nginx is the nginx that lbctl controls.
type Nginx interface {
	Connections(ctx context.Context) (nginx.Connections, error)
	Memory() (bytes int64, err error)
}

var (
	nginxSection = newSection("nginx")

	nginxUp  = nginxSection.gauge("lbctl_nginx_up", "1 if nginx answers, otherwise 0.")
	masterUp = nginxSection.gauge("lbctl_nginx_master_up",
		"1 if nginx's master process runs, otherwise 0. If it is gone and nginx is up, its workers go on serving, but take no change.")
	nginxInfo  = nginxSection.gauge("lbctl_nginx_info", "nginx's version; always 1.", label{"version", "(version)"})
	workers    = nginxSection.gauge("lbctl_nginx_workers", "Worker processes that accept connections.")
	oldWorkers = nginxSection.gauge("lbctl_nginx_old_workers",
		"Worker processes that still have connections from before a reload.")
	oldMemory = nginxSection.gauge("lbctl_nginx_old_workers_memory_bytes",
		"Memory that they alone have; it becomes free when they end.")
	memory = nginxSection.gauge("lbctl_nginx_memory_bytes",
		"Memory of all processes of nginx together. What they share counts once, if the kernel tells lbctl "+
			"about processes of the workers' user. Absent if nginx does not run.")
	connections = nginxSection.gauge("lbctl_nginx_connections",
		"Connections of clients. Each call of an HTTP/2 connection counts as reading or writing, so these can be more than active ones. "+
			"Absent, as the next four, if nginx does not answer.",
		label{"state", "active|reading|writing|waiting"})
	accepted = nginxSection.counter("lbctl_nginx_connections_accepted_total", "Connections that nginx has accepted since it started.")
	handled  = nginxSection.counter("lbctl_nginx_connections_handled_total",
		"Of those, the ones that it did not close at once because it had too many.")
	nginxRequests = nginxSection.counter("lbctl_nginx_requests_total",
		"Requests that have begun since nginx started, those of lbctl included.")
	inProgress = nginxSection.gauge("lbctl_nginx_requests_in_flight",
		"Requests that nginx works on now, without this question of lbctl.")
)

func collectNginx(ctx context.Context, to *text, status controller.Status, server Nginx) {
	to.truth(nginxUp, status.Nginx.Generation > 0)
	to.truth(masterUp, status.Nginx.Running)
	to.set(nginxInfo, 1, status.Nginx.Version)
	to.set(workers, float64(status.Nginx.Workers))
	to.set(oldWorkers, float64(status.Nginx.OldWorkers))
	to.set(oldMemory, float64(status.Nginx.OldWorkersMemory))
	if bytes, err := server.Memory(); err == nil {
		to.set(memory, float64(bytes))
	}
	c, err := server.Connections(ctx)
	if err != nil {
		return
	}
	to.set(connections, float64(c.Active), "active")
	to.set(connections, float64(c.Reading), "reading")
	to.set(connections, float64(c.Writing), "writing")
	to.set(connections, float64(c.Waiting), "waiting")
	to.set(accepted, float64(c.Accepted))
	to.set(handled, float64(c.Handled))
	to.set(nginxRequests, float64(c.Requests))
	to.set(inProgress, float64(max(0, c.Reading+c.Writing-1)))
}
