package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The stand-in for Grafana serves the dashboards of our provisioning, and passes on their questions,
// and nothing else, to Prometheus.
func TestGrafana(t *testing.T) {
	var asked []string
	prometheus := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = append(asked, r.RequestURI) }))
	defer prometheus.Close()
	address, err := url.Parse(prometheus.URL)
	require.NoError(t, err)

	boards, err := filepath.Abs("../grafana/dashboards")
	require.NoError(t, err)
	t.Setenv("LB_DASHBOARDS", boards)
	server := httptest.NewServer(grafana(address, "../grafana/provisioning/dashboards"))
	defer server.Close()
	var found []struct{ UID string }
	get(t, server.URL+"/api/dashboards", http.StatusOK, &found)
	assert.Len(t, found, 3)
	resp, err := http.Get(server.URL + "/d/lbctl-services/x")
	require.NoError(t, err)
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	require.NoError(t, err)
	assert.Contains(t, string(page), "stand-in for Grafana")

	for path, want := range map[string]int{
		"/prometheus/api/v1/query?query=up":            http.StatusOK,
		"/prometheus/api/v1/label/service/values":      http.StatusOK,
		"/prometheus/api/v1/admin/tsdb/delete_series":  http.StatusNotFound,
		"/prometheus/api/v1/query/../admin/tsdb/clean": http.StatusNotFound,
	} {
		resp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, want, resp.StatusCode, path)
	}
	assert.ElementsMatch(t, []string{"/api/v1/query?query=up", "/api/v1/label/service/values"}, asked)
}

func TestPrometheusOfGrafana(t *testing.T) {
	address, err := prometheusSource("../grafana/provisioning/datasources")
	require.NoError(t, err)
	assert.Equal(t, "http://prometheus:9090", address.String())
	_, err = prometheusSource(t.TempDir())
	assert.ErrorContains(t, err, "names a data source of type prometheus")
}
