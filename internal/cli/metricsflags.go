package cli

import (
	"time"

	"lbctl/internal/daemon"
	"lbctl/internal/traffic"
)

// metricsFlags defines the flag about metrics.
func metricsFlags(flags *flags, cfg *daemon.Config) {
	define(flags, &cfg.MetricsLinger, "metrics-linger", "LBCTL_METRICS_LINGER", "DURATION",
		"how long metrics of requests stay after their service or instance has gone; longer than the interval in which Prometheus scrapes", traffic.DefaultLinger, parseDuration(time.Second))
}
