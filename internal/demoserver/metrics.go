package demoserver

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
)

// callMetrics are the metrics of calls, with the names that gRPC's middleware for Prometheus has.
// docs/metrics.md describes them.
type callMetrics struct {
	registry *prometheus.Registry
	started  *prometheus.CounterVec
	handled  *prometheus.CounterVec
	took     *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	// known has the methods of the server. All others are one, so that clients can't make series.
	known map[string]method
}

// method has the values of two labels.
type method struct{ service, name string }

var unknownMethod = method{"unknown", "unknown"}

func newCallMetrics() *callMetrics {
	labels := []string{"grpc_service", "grpc_method"}
	m := &callMetrics{
		registry: prometheus.NewRegistry(),
		known:    map[string]method{},
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_started_total", Help: "Calls that have begun."}, labels),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_handled_total", Help: "Calls that have ended, by their status."}, append(labels, "grpc_code")),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "How long calls took. A stream is one call.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}}, labels),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "grpc_server_in_flight", Help: "Calls that have begun and not ended."}, labels),
	}
	m.registry.MustRegister(m.started, m.handled, m.took, m.inFlight,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// know makes series for all methods of a server. Call it before the server serves.
func (m *callMetrics) know(server *grpc.Server) {
	for service, info := range server.GetServiceInfo() {
		for _, i := range info.Methods {
			known := method{service, i.Name}
			m.known["/"+service+"/"+i.Name] = known
			m.started.WithLabelValues(known.service, known.name)
			m.handled.WithLabelValues(known.service, known.name, code.Code_OK.String())
			m.took.WithLabelValues(known.service, known.name)
			m.inFlight.WithLabelValues(known.service, known.name)
		}
	}
}

// begin counts a call, and returns the function that counts its end.
func (m *callMetrics) begin(fullMethod string) (end func(status string)) {
	of, ok := m.known[fullMethod]
	if !ok {
		of = unknownMethod
	}
	start := time.Now()
	m.started.WithLabelValues(of.service, of.name).Inc()
	inFlight := m.inFlight.WithLabelValues(of.service, of.name)
	inFlight.Inc()
	return func(status string) {
		inFlight.Dec()
		if status == "" || strings.ContainsAny(status, "0123456789") {
			status = "OTHER" // gRPC does not know it
		}
		m.handled.WithLabelValues(of.service, of.name, status).Inc()
		m.took.WithLabelValues(of.service, of.name).Observe(time.Since(start).Seconds())
	}
}

// serve serves the metrics at /metrics until the listener is closed.
func (m *callMetrics) serve(listener net.Listener, logger *slog.Logger) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	_ = server.Serve(listener) // ends with the listener
}
