package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// prometheus is a running Prometheus; its value is the address of its API.
type prometheus string

// startPrometheus starts Prometheus, which scrapes a target twice a second. It skips the test, or
// fails it with LB_TEST_REQUIRE=1, where Prometheus is missing.
func startPrometheus(t *testing.T, target string) prometheus {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatalf("LB_TEST_REQUIRE=1, but Prometheus is missing: %v (build/need.sh prometheus installs it)", err)
		}
		t.Skipf("no Prometheus: %v", err)
	}
	dir, address := t.TempDir(), net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	config := fmt.Sprintf("global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\nscrape_configs:\n- job_name: lbctl\n  static_configs:\n  - targets: [%q]\n", target)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.Command(path, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("log of Prometheus:\n%s", text)
		}
		log.Close()
	})
	return prometheus(address)
}

// query returns the number of series that a query gives.
func (p prometheus) query(query string) (series int, err error) {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + string(p) + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var result struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(answer.Body).Decode(&result); err != nil {
		return 0, err
	}
	if result.Error != "" {
		return 0, errors.New(result.Error)
	}
	return len(result.Data.Result), nil
}

// TestQueries runs the queries of docs/metrics.md.
func TestQueries(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	var queries []string
	for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		queries = append(queries, block[1])
	}
	require.NotEmpty(t, queries)

	certificates := t.TempDir()
	certificatestest.NewAuthority(t, "test").Issue(t, 100*24*time.Hour, "localhost").Write(t, certificates, "default")
	tls, admin := nginxtest.FreePort(t), net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	s := alone(t, newest(t), "--certificates", certificates, "--listener", fmt.Sprintf("grpcs=grpcs://127.0.0.1:%d", tls), "--listener", "https=off",
		"--requests-in-flight", "on", "--admin", admin)
	p := startPrometheus(t, admin)
	s.backends(t, 1, 2)
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "closed", Address: "127.0.0.1", Port: 1, Tags: []string{"http_server"}, Meta: map[string]string{"lb-path": "/closed"},
	}))
	require.NoError(t, s.consul.Agent().EnableServiceMaintenance("closed", "a test"))
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "broken", Address: "127.0.0.1", Port: 1, Tags: []string{"http_server"}, Meta: map[string]string{"lb-path": "broken"},
	}))
	s.Eventually("Prometheus has scraped lbctl", func() error {
		n, err := p.query(`lbctl_nginx_up == 1`)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d series", n)
		}
		return err
	})
	sessions := s.traffic(t)
	lbtest.StartBackend(t, "server-3").Register(t, s.consul, hello)
	for _, query := range queries {
		s.Eventually("there are results of "+query, func() error {
			for range 2 { // a rate needs requests after Prometheus has first seen the series
				s.http(t, "GET", "shop.test", "/shop/item", "")
			}
			sessions()
			if _, err := s.status("127.0.0.2", "/shop"); err != nil {
				return err
			}
			n, err := p.query(query)
			if err == nil && n == 0 {
				err = errors.New("there are none")
			}
			return err
		})
	}
	assert.Greater(t, len(queries), 10)
}
