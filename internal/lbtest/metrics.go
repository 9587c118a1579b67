package lbtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"lbctl/internal/metrics/metricstest"
)

// Metrics asks the daemon for its metrics, over its unix socket.
func (b *Balancer) Metrics() (metricstest.Metrics, error) {
	return metricstest.ScrapeOver("http://lbctl/metrics", &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(b.StateDir, "run", "admin.sock"))
		},
	})
}

// WaitMetric waits until the only series of a metric with these labels has a value.
func (b *Balancer) WaitMetric(want float64, metric string, labels ...string) {
	b.t.Helper()
	b.Eventually(fmt.Sprintf("%s{%s} is %v", metric, strings.Join(labels, " "), want), func() error {
		m, err := b.Metrics()
		if err != nil {
			return err
		}
		if value, ok := m.Value(metric, labels...); !ok {
			return fmt.Errorf("there are %d of it", len(m.Series(metric, labels...)))
		} else if value != want {
			return fmt.Errorf("it is %v", value)
		}
		return nil
	})
}
