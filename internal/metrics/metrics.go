// Package metrics exposes what lbctl and its nginx do as metrics of Prometheus. At each scrape it
// asks the parts of lbctl, which know nothing of it. docs/metrics.md describes the metrics.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// askTimeout bounds what a scrape asks of nginx. Prometheus gives up after ten seconds.
	askTimeout = 3 * time.Second
	// maxScrapes bounds the scrapes at a time. With a thousand services each needs some tens of
	// megabytes.
	maxScrapes = 4
)

// sections are all metrics of ours, in the order of docs/metrics.md.
var sections = []*section{requestsSection, loopSection, servicesSection, nginxSection, otherSection, logSection, requestLogSection, tracesSection}

// Options are the parts of lbctl that are asked. Loop, Services and Nginx are required.
type Options struct {
	Version  string // of lbctl
	Loop     Loop
	Services Services
	Nginx    Nginx
	// Deliveries tells how nginx gets servers by DNS; default none: it gets them by reloads.
	Deliveries Deliveries
	Traffic    Traffic      // default none
	Log        Log          // default none: nginx writes no access log
	Traces     Traces       // default none: there are no traces
	RequestLog RequestLog   // default none: it is written nowhere
	Logger     *slog.Logger // default none
}

// New returns the handler of GET /metrics.
func New(opts Options) http.Handler {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{opts}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // one bad series must not hide the others
		MaxRequestsInFlight: maxScrapes,
	})
}

// collector collects the metrics of all sections.
type collector struct{ opts Options }

// Describe sends the descriptions of all metrics, as a prometheus.Collector does.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, s := range sections {
		for _, f := range s.families {
			to <- f.desc
		}
	}
}

// Collect asks the parts, and sends all series.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	to := series(metrics)
	to.set(buildInfo, 1, c.opts.Version, runtime.Version())
	status := c.opts.Loop.Status(ctx)
	collectLoop(to, status, c.opts.Loop.Counts(), c.opts.Deliveries)
	collectServices(to, c.opts.Services)
	collectNginx(ctx, to, status, c.opts.Nginx)
	collectLog(to, c.opts.Log)
	collectRequestLog(to, c.opts.RequestLog)
	collectRequests(to, c.opts.Traffic)
	collectTraces(to, c.opts.Traces)
}
