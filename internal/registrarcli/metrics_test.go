package registrarcli

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/metrics/metricstest"
)

func TestMetrics(t *testing.T) {
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "DRAIN=1h", "META=metrics-port=9777", "METRICS=127.0.0.1:0"))
	awaitStatus(t, agent, "passing")
	meta := func() map[string]string {
		t.Helper()
		service, _, err := agent.Client().Agent().Service("web-1", nil)
		require.NoError(t, err)
		return service.Meta
	}
	assert.Equal(t, "9777", meta()["metrics-port"])
	port := meta()["registrar-metrics-port"]
	require.NotEmpty(t, port, "the port that was free")
	scrape := func() (metricstest.Metrics, error) {
		return metricstest.Scrape("http://127.0.0.1:" + port + "/metrics")
	}
	await := func(want float64, metric string, labels ...string) {
		t.Helper()
		consultest.Eventually(t, patience, func() (bool, string) {
			m, err := scrape()
			got, ok := m.Value(metric, labels...)
			return ok && got == want, fmt.Sprintf("%s%q is %v, want %v (%v)", metric, labels, got, want, err)
		})
	}
	await(1, "registrar_registered", "service", "web")
	await(1, "registrar_registrations_total", "outcome", "success")
	await(1, "registrar_consul_up")
	await(0, "registrar_draining")
	await(0, "registrar_repairs_total")
	m, err := scrape()
	require.NoError(t, err)
	metricstest.CheckDocumented(t, "../../docs/metrics.md", "registrar_", m)
	metricstest.Promtool(t, m)

	require.NoError(t, agent.Client().Agent().ServiceDeregister("web-1"))
	await(1, "registrar_repairs_total")
	await(2, "registrar_registrations_total", "outcome", "success")
	assert.Equal(t, port, meta()["registrar-metrics-port"])

	agent.Stop()
	await(0, "registrar_consul_up")
	agent.Start()
	await(1, "registrar_consul_up")

	p.signal(syscall.SIGTERM)
	await(1, "registrar_draining")
	await(0, "registrar_registered", "service", "web")
	p.signal(syscall.SIGINT)
	assert.Equal(t, 0, p.code())
}

func TestMetricsWithoutAnAddress(t *testing.T) {
	agent := consultest.Start(t)
	launch(t, environment(agent))
	awaitStatus(t, agent, "passing")
	service, _, err := agent.Client().Agent().Service("web-1", nil)
	require.NoError(t, err)
	assert.NotContains(t, service.Meta, "registrar-metrics-port")
}

func TestMetricsOnATakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	agent := consultest.Start(t)
	p := launch(t, environment(agent, "METRICS="+taken.Addr().String()))
	assert.Equal(t, exitFailure, p.code())
	assert.True(t, strings.HasPrefix(p.output(), "registrar: listen for Prometheus: listen tcp "+taken.Addr().String()), p.output())
	assert.Contains(t, p.output(), "address already in use; choose another address with METRICS or --metrics")
	assert.Equal(t, "absent", status(t, agent))
}
