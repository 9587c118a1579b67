// Package metrics exposes what lbctl and its nginx do as metrics of Prometheus. At each scrape it
// asks the parts of lbctl, which know nothing of it. docs/metrics.md describes the metrics.
package metrics

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

const (
	// askTimeout bounds what a scrape asks of nginx. Prometheus gives up after ten seconds.
	askTimeout = 3 * time.Second
	// maxScrapes bounds the scrapes at a time. With a thousand services each needs some megabytes.
	maxScrapes = 4
	bufferSize = 32 << 10
)

// sections are all metrics of ours, in the order of docs/metrics.md.
var sections = []*section{requestsSection, sessionsSection, loopSection, servicesSection, nginxSection, otherSection, logSection, requestLogSection, tracesSection}

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
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &handler{opts: opts, process: own, running: make(chan struct{}, maxScrapes)}
}

// handler answers scrapes.
type handler struct {
	opts    Options
	process prometheus.Gatherer // of the metrics of the process and of Go
	running chan struct{}       // holds a token for each scrape
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.running <- struct{}{}:
		defer func() { <-h.running }()
	default:
		http.Error(w, fmt.Sprintf("%d scrapes are running, which is the limit; try again later", maxScrapes), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	if err := h.answer(w, r); err != nil && r.Context().Err() == nil {
		h.opts.Logger.Warn("metrics could not be sent", "to", r.RemoteAddr, "error", err)
	}
}

// answer writes the metrics, compressed if the client takes that.
func (h *handler) answer(w http.ResponseWriter, r *http.Request) error {
	to := bufio.NewWriterSize(w, bufferSize)
	if !takesGzip(r) {
		return errors.Join(h.write(r.Context(), to), to.Flush())
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Vary", "Accept-Encoding")
	compressing, _ := gzip.NewWriterLevel(to, gzip.BestSpeed) // the level is valid
	buffered := bufio.NewWriterSize(compressing, bufferSize)
	return errors.Join(h.write(r.Context(), buffered), buffered.Flush(), compressing.Close(), to.Flush())
}

// takesGzip reports whether the client takes an answer that is compressed.
func takesGzip(r *http.Request) bool {
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, weight, weighted := strings.Cut(strings.ReplaceAll(accepted, " ", ""), ";q=")
		if coding != "gzip" {
			continue
		}
		if !weighted {
			return true
		}
		q, err := strconv.ParseFloat(weight, 64)
		return err == nil && q > 0
	}
	return false
}

// write asks the parts, and writes all metrics.
func (h *handler) write(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	to := &text{to: w}
	to.set(buildInfo, 1, h.opts.Version, runtime.Version())
	status := h.opts.Loop.Status(ctx)
	collectLoop(to, status, h.opts.Loop.Counts(), h.opts.Deliveries)
	collectServices(to, h.opts.Services)
	collectNginx(ctx, to, status, h.opts.Nginx)
	collectLog(to, h.opts.Log)
	collectRequestLog(to, h.opts.RequestLog)
	collectRequests(to, h.opts.Traffic)
	collectTraces(to, h.opts.Traces)
	to.flush()
	return errors.Join(to.err, h.writeProcess(w))
}

// writeProcess writes the metrics of the process and of Go.
func (h *handler) writeProcess(w io.Writer) error {
	families, err := h.process.Gather()
	if err != nil {
		return fmt.Errorf("metrics of the process: %w", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return err
		}
	}
	return nil
}
