package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// Our configuration, which asks Consul, becomes one that Debian's Prometheus takes, and loses
// nothing else.
func TestConfigurationWithoutConsul(t *testing.T) {
	dir, err := filepath.Abs("../prometheus")
	require.NoError(t, err)
	config, err := os.ReadFile(filepath.Join(dir, "prometheus.yml"))
	require.NoError(t, err)
	made, err := byHTTP(config, dir, "http://127.0.0.1:1/")
	require.NoError(t, err)
	assert.NotContains(t, string(made), "consul_sd_configs")
	assert.Equal(t, strings.Count(string(config), "\n  - job_name:"), strings.Count(string(made), "job_name:"))
	assert.Contains(t, string(made), "url: http://127.0.0.1:1/?server=consul-ui%3A8500&service=nginx")

	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatal("LB_TEST_REQUIRE=1, but promtool is missing")
		}
		t.Skip("no promtool: build/need.sh promtool installs it")
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(file, made, 0o600))
	out, err := exec.Command(promtool, "check", "config", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "2 rule files found")
}

func TestConfigurationThatTheStandinDoesNotKnow(t *testing.T) {
	_, err := byHTTP([]byte("scrape_configs: [{job_name: a, consul_sd_configs: [{server: b, tags: [c]}]}]"), "/", "http://127.0.0.1:1/")
	assert.EqualError(t, err, "job a: the stand-in for Prometheus knows server, services and refresh_interval of consul_sd_configs, not tags")
}

// The stand-in finds in the real Consul what Prometheus's own discovery would find.
func TestDiscovery(t *testing.T) {
	consul := consultest.Start(t)
	agent := consul.Client()
	require.NoError(t, agent.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "cart", ID: "cart-1", Address: "127.0.0.9", Port: 7777, Tags: []string{"grpc_server", "blue"},
		Meta: map[string]string{"metrics-port": "9777"},
	}))
	require.NoError(t, agent.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "stock", ID: "stock-1", Port: 80}))
	server := httptest.NewServer(discovery{})
	defer server.Close()
	ask := func(query string) []targetGroup {
		resp, err := http.Get(server.URL + "/?server=" + consul.Addr + query)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)
		var groups []targetGroup
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&groups))
		return groups
	}
	all := ask("")
	require.Len(t, all, 3) // and Consul itself
	carts := ask("&service=cart")
	require.Len(t, carts, 1)
	assert.Equal(t, []string{"127.0.0.9:7777"}, carts[0].Targets)
	labels := carts[0].Labels
	assert.Equal(t, "9777", labels["__meta_consul_service_metadata_metrics_port"])
	assert.Equal(t, "127.0.0.9", labels["__meta_consul_service_address"])
	assert.Equal(t, ",grpc_server,blue,", labels["__meta_consul_tags"])
	assert.Equal(t, "passing", labels["__meta_consul_health"])
	assert.NotEmpty(t, labels["__meta_consul_node"])
	stocks := ask("&service=stock")
	require.Len(t, stocks, 1)
	assert.Empty(t, stocks[0].Labels["__meta_consul_service_address"])
	assert.Equal(t, []string{stocks[0].Labels["__meta_consul_address"] + ":80"}, stocks[0].Targets)

	resp, err := http.Get(server.URL + "/?server=127.0.0.1:1")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, "without Consul: Prometheus keeps its targets")
}
