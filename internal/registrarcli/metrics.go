package registrarcli

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lbctl/internal/registration"
)

// listenMetrics opens the address of the metrics, before anything is registered: the metadata
// has the port.
func listenMetrics(cfg *registration.Config) (net.Listener, error) {
	if cfg.Metrics == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("listen for Prometheus: %w; choose another address with METRICS or --metrics", err)
	}
	cfg.Metrics = listener.Addr().String() // port 0 is another one now
	return listener, nil
}

// serveMetrics serves what a registrar does at /metrics, until the listener is closed.
func serveMetrics(listener net.Listener, service string, figures func() registration.Figures, logger *slog.Logger) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(service, figures), promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	_ = server.Serve(listener) // ends with the listener
}

// registry has the metrics of a registrar; docs/metrics.md describes them.
func registry(service string, figures func() registration.Figures) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	truth := func(name, help string, labels prometheus.Labels, of func(registration.Figures) bool) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
			if of(figures()) {
				return 1
			}
			return 0
		}))
	}
	total := func(name, help string, labels prometheus.Labels, of func(registration.Figures) uint64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
			return float64(of(figures()))
		}))
	}
	truth("registrar_registered", "1 while the agent has the entry, as far as the registrar knows, and the instance has not begun to leave.",
		prometheus.Labels{"service": service}, func(f registration.Figures) bool { return f.Registered })
	truth("registrar_draining", "1 while the server serves on after the instance has left the rotation.",
		nil, func(f registration.Figures) bool { return f.Draining })
	truth("registrar_consul_up", "1 if Consul's agent has carried out the registrar's last request.",
		nil, func(f registration.Figures) bool { return f.AgentAnswers })
	const registrations, registrationsHelp = "registrar_registrations_total", "Registrations with Consul's agent, the first one and repairs."
	total(registrations, registrationsHelp, prometheus.Labels{"outcome": "success"}, func(f registration.Figures) uint64 { return f.Registrations })
	total(registrations, registrationsHelp, prometheus.Labels{"outcome": "failed"}, func(f registration.Figures) uint64 { return f.FailedRegistrations })
	total("registrar_repairs_total", "How often the agent's entry was gone or changed, so that the instance was registered again.",
		nil, func(f registration.Figures) uint64 { return f.Repairs })
	total("registrar_deregistrations_total", "How often the registrar has removed the entry.",
		nil, func(f registration.Figures) uint64 { return f.Deregistrations })
	return registry
}
