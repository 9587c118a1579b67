package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
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
	assert.Len(t, found, 4)
	resp, err := http.Get(server.URL + "/d/lbctl-services/x")
	require.NoError(t, err)
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	require.NoError(t, err)
	assert.Contains(t, string(page), "stand-in for Grafana")

	for path, want := range map[string]int{
		"/":                                            http.StatusOK,
		"/d/lbctl-services":                            http.StatusOK,
		"/d/lbctl-services?minutes=5":                  http.StatusOK,
		"/d/another/services":                          http.StatusNotFound,
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

// The page of a dashboard that does not exist says so, and leads to those that do.
func TestGrafanaWithoutTheDashboard(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatal("LB_TEST_REQUIRE=1, but no chromium is on PATH")
		}
		t.Skip("no chromium")
	}
	boards, err := filepath.Abs("../grafana/dashboards")
	require.NoError(t, err)
	t.Setenv("LB_DASHBOARDS", boards)
	server := httptest.NewServer(grafana(&url.URL{Scheme: "http", Host: "127.0.0.1:0"}, "../grafana/provisioning/dashboards"))
	defer server.Close()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	allocator, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))...)
	defer stop()
	tab, end := chromedp.NewContext(allocator)
	defer end()
	require.NoError(t, chromedp.Do(tab, chromedp.Navigate(server.URL+"/d/an%20other/services")))
	var said string
	for said == "" && ctx.Err() == nil { // until the script has drawn it
		said, err = chromedp.Run(tab, chromedp.Evaluate[string](`document.querySelector('header h1')?.textContent ?? ''`))
		require.NoError(t, err)
	}
	assert.Equal(t, "There is no dashboard an other", said)
	links, err := chromedp.Run(tab, chromedp.Evaluate[string](`[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href')).join(' ')`))
	require.NoError(t, err)
	assert.Equal(t, "/d/lbctl-control /d/lbctl-service /d/lbctl-services /d/lbctl-tcp", links)
	panels, err := chromedp.Run(tab, chromedp.Evaluate[int](`document.querySelectorAll('main section').length`))
	require.NoError(t, err)
	assert.Zero(t, panels, "nor those of another one")
}

func TestPrometheusOfGrafana(t *testing.T) {
	address, err := prometheusSource("../grafana/provisioning/datasources")
	require.NoError(t, err)
	assert.Equal(t, "http://prometheus:9090", address.String())
	_, err = prometheusSource(t.TempDir())
	assert.ErrorContains(t, err, "names a data source of type prometheus")
}
