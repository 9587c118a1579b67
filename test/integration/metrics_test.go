package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"

	"lbctl/internal/certificates/certificatestest"
	"lbctl/internal/lbtest"
	"lbctl/internal/metrics/metricstest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/otlptest"
	"lbctl/protos"
)

func TestMetrics(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		certificates := t.TempDir()
		certificatestest.NewAuthority(t, "test").Issue(t, 100*24*time.Hour, "localhost").Write(t, certificates, "default")
		tls := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
		s := alone(t, binary, "--certificates", certificates, "--listener", "grpcs=grpcs://"+tls, "--listener", "https=off",
			"--request-log", "stdout", "--requests-in-flight", "on", "--otlp-endpoint", otlptest.Start(t).URL)
		first := lbtest.StartBackend(t, "first")
		registration := first.Registration(hello)
		registration.Check.Interval = "1h" // lbctl's probe finds its end, not Consul's check
		require.NoError(t, s.consul.Agent().ServiceRegister(registration))
		s.WaitServing(hello, 1)
		for _, name := range []string{"second", "third"} {
			lbtest.StartBackend(t, name).Register(t, s.consul, hello)
		}
		s.WaitServing(hello, 3)

		last := lbtest.StartBackend(t, "last")
		convergence(t, s, binary, last)

		s.traffic(t)
		s.StopLbctl()
		s.StartLbctl()
		s.WaitServing(hello, 4)
		s.WaitMetric(4, "lbctl_requests_total", "service", hello, "grpc_status", "OK") // it goes on
		s.WaitMetric(0, "lbctl_accesslog_lost_total")
		s.strangeRequests(t)

		first.Kill()
		s.WaitMetric(1, "lbctl_instance_ejections_total", "service", hello, "by", "probe")
		s.WaitMetric(1, "lbctl_instances", "service", hello, "state", "ejected")
		s.WaitMetric(3, "lbctl_instances", "service", hello, "state", "in-rotation")

		m, err := s.Metrics()
		require.NoError(t, err)
		metricstest.CheckDocumented(t, "../../docs/metrics.md", "lbctl_", m)
		metricstest.Promtool(t, m)
		for metric, want := range map[string]float64{
			"lbctl_nginx_up": 1, "lbctl_consul_up": 1, "lbctl_frozen": 0, "lbctl_last_apply_successful": 1, "lbctl_nginx_info": 1,
		} {
			got, ok := m.Value(metric)
			assert.True(t, ok && got == want, "%s is %v, want %v", metric, got, want)
		}
		memory, _ := m.Value("lbctl_nginx_memory_bytes")
		assert.Greater(t, memory, 1e6)
		expiry, _ := m.Value("lbctl_certificate_expiry_timestamp_seconds", "name", "default")
		assert.Greater(t, expiry, float64(time.Now().Unix()))

		_, err = s.Lbctl("rollback", "1")
		require.NoError(t, err)
		s.WaitMetric(1, "lbctl_frozen")
		s.WaitMetric(1, "lbctl_state", "state", "frozen")
		_, err = s.Lbctl("resume")
		require.NoError(t, err)
		s.WaitMetric(0, "lbctl_frozen")
		s.WaitMetric(1, "lbctl_reloads_total", "reason", "rollback", "outcome", "success")

		s.leave(t, "first", "second", "third", "last")
		s.Eventually("no series has the service", func() error {
			m, err := s.Metrics()
			if err != nil {
				return err
			}
			for name := range m {
				if left := m.Series(name, "service", hello); len(left) > 0 && !countsRequests(name) {
					return fmt.Errorf("%s has %v", name, left)
				}
			}
			return nil
		})

		s.Nginx().Stop()
		s.WaitMetric(0, "lbctl_nginx_up")
		m, err = s.Metrics()
		require.NoError(t, err)
		for _, gone := range []string{"lbctl_nginx_connections", "lbctl_nginx_memory_bytes"} {
			assert.NotContains(t, m, gone)
		}
	})
}

// shop is an HTTP service with an instance that answers and one where nothing listens.
func (s *system) shop(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/shop/fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	for id, port := range map[string]int{"good": server.Listener.Addr().(*net.TCPAddr).Port, "bad": nginxtest.FreePort(t)} {
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: "shop-" + id, Name: "shop", Address: "127.0.0.1", Port: port, Tags: []string{"http_server"},
			Meta: map[string]string{"lb-path": "/shop", "lb-check": "none", "lb-version": id},
		}))
	}
	s.WaitServing("shop", 2)
}

// http sends a request to the balancer's HTTP port and returns the status of the answer.
func (s *system) http(t *testing.T, method, host, path, body string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTP+path, strings.NewReader(body))
	require.NoError(t, err)
	request.Host = host
	answer, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	return answer.StatusCode
}

// traffic sends requests of all kinds, and has sessions, and checks that each is counted once. The
// function that it returns has more sessions.
func (s *system) traffic(t *testing.T) (sessions func()) {
	t.Helper()
	s.shop(t)
	for range 20 { // every second one begins at the bad instance
		require.Equal(t, http.StatusOK, s.http(t, "GET", "shop.test", "/shop/item?secret=1", ""))
	}
	for range 2 {
		require.Equal(t, http.StatusInternalServerError, s.http(t, "GET", "shop.test", "/shop/fail", ""))
	}
	_, err := s.Lbctl("deny", "127.0.0.2", "--service", "shop", "-m", "a test", "--wait", "30s")
	require.NoError(t, err)
	got, err := s.status("127.0.0.2", "/shop")
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, got)
	for range 3 {
		require.Equal(t, http.StatusNotFound, s.http(t, "GET", "shop.test", "/nowhere", ""))
	}
	sessions = s.tcpServices(t)
	for range 3 {
		sessions()
	}
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ping := protos.NewPingClient(conn)
	for range 4 {
		_, err := ping.SayHello(t.Context(), &protos.PingMessage{})
		require.NoError(t, err)
	}
	err = conn.Invoke(t.Context(), "/no.such.Service/Method", &protos.PingMessage{}, &protos.PingMessage{})
	require.Equal(t, codes.Unimplemented, grpcstatus.Code(err))

	for _, want := range []struct {
		value  float64
		metric string
		labels []string
	}{
		{20, "lbctl_requests_total", []string{"service", "shop", "protocol", "http", "code", "2xx", "grpc_status", "", "route", "*/shop"}},
		{2, "lbctl_requests_total", []string{"service", "shop", "code", "5xx"}},
		{4, "lbctl_requests_total", []string{"service", hello, "protocol", "grpc", "code", "2xx", "grpc_status", "OK"}},
		{1, "lbctl_requests_total", []string{"service", hello, "code", "2xx", "grpc_status", "UNIMPLEMENTED"}},
		{1, "lbctl_requests_total", []string{"service", "shop", "code", "4xx"}},
		{1, "lbctl_requests_refused_total", []string{"service", "shop", "reason", "denied"}},
		{23, "lbctl_request_duration_seconds", []string{"service", "shop"}},
		{3, "lbctl_unrouted_requests_total", []string{"code", "4xx"}},
		{20, "lbctl_upstream_requests_total", []string{"service", "shop", "version", "good", "result", "success"}},
		{2, "lbctl_upstream_requests_total", []string{"service", "shop", "version", "good", "result", "5xx"}},
		{22, "lbctl_upstream_duration_seconds", []string{"service", "shop", "version", "good"}},
		{0, "lbctl_upstream_requests_total", []string{"service", "shop", "version", "bad", "result", "success"}},
		{3, "lbctl_sessions_total", []string{"service", "db", "result", "success"}},
		{3, "lbctl_sessions_total", []string{"service", "dead", "result", "unreachable"}},
		{0, "lbctl_sessions_total", []string{"service", "shared", "result", "success"}},
		{3, "lbctl_unrouted_sessions_total", []string{"result", "no-route"}},
		{3, "lbctl_session_duration_seconds", []string{"service", "db"}},
		{3, "lbctl_upstream_sessions_total", []string{"service", "db", "result", "success"}},
		{3, "lbctl_upstream_connect_duration_seconds", []string{"service", "db"}},
	} {
		s.WaitMetric(want.value, want.metric, want.labels...)
	}
	m, err := s.Metrics()
	require.NoError(t, err)
	failed, ok := m.Value("lbctl_upstream_requests_total", "service", "shop", "version", "bad", "result", "connect")
	assert.True(t, ok && failed > 0, "tries of the bad instance: %v", failed)
	retries, ok := m.Value("lbctl_upstream_retries_total", "service", "shop", "reason", "connect")
	assert.True(t, ok)
	assert.Equal(t, failed, retries, "each of them was sent to the good one")
	for _, metric := range []string{"lbctl_request_bytes_total", "lbctl_response_bytes_total"} {
		bytes, _ := m.Value(metric, "service", "shop")
		assert.Greater(t, bytes, 23*50.0, metric)
	}
	return sessions
}

// strangeRequests checks that clients can make no series.
func (s *system) strangeRequests(t *testing.T) {
	t.Helper()
	count := func() (series int, requests float64) {
		m, err := s.Metrics()
		require.NoError(t, err)
		for name := range m {
			if strings.HasPrefix(name, "lbctl_") {
				series += len(m[name].Metric)
			}
		}
		for _, r := range append(m.Series("lbctl_requests_total", "service", "shop"), m.Series("lbctl_unrouted_requests_total")...) {
			requests += r.Counter.GetValue()
		}
		return series, requests
	}
	seriesBefore, requestsBefore := count()
	const number = 60
	for n := range number {
		path := fmt.Sprintf("/shop/%d/%%00%%ff%%09%d?q=%d", n, rand.Int(), n)
		if n%3 == 0 {
			path = fmt.Sprintf("/%d", rand.Int())
		}
		s.http(t, fmt.Sprintf("M%d", n%7), fmt.Sprintf("host-%d.test", rand.Int()), path, "")
	}
	var series int
	s.Eventually("all are counted", func() error {
		var requests float64
		if series, requests = count(); requests != requestsBefore+number {
			return fmt.Errorf("%v requests, want %v", requests, requestsBefore+number)
		}
		return nil
	})
	assert.LessOrEqual(t, series, seriesBefore+2, "at most other codes of shop and of requests without a service")
}

// leave takes all instances of hello out of Consul, those with these names.
func (s *system) leave(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-"+name, "leaving"))
	}
	s.WaitServing(hello, 0)
	for _, name := range names {
		require.NoError(t, s.consul.Agent().ServiceDeregister(hello+"-"+name))
	}
}

// convergence adds an instance and checks that the time is counted until nginx serves it.
func convergence(t *testing.T, s *system, binary nginxtest.Binary, b *lbtest.Backend) {
	delivery := "dns"
	if strings.HasPrefix(binary.Version, "1.22.") {
		delivery = "reload"
	}
	counted := func() (number, seconds float64) {
		m, err := s.Metrics()
		require.NoError(t, err)
		all := m.Series("lbctl_convergence_seconds", "delivery", delivery)
		require.Len(t, all, 1, "series of %s", delivery)
		return float64(all[0].Histogram.GetSampleCount()), all[0].Histogram.GetSampleSum()
	}
	number, seconds := counted()
	began := time.Now()
	b.Register(t, s.consul, hello)
	s.Eventually("the change is counted", func() error {
		if n, _ := counted(); n <= number {
			return fmt.Errorf("%v changes by %s, as before", n, delivery)
		}
		return nil
	})
	_, after := counted()
	assert.Greater(t, after, seconds)
	assert.Less(t, after-seconds, time.Since(began).Seconds())
}

// countsRequests reports whether the series of a metric go some minutes after their service.
func countsRequests(metric string) bool {
	return strings.HasPrefix(metric, "lbctl_request") || strings.HasPrefix(metric, "lbctl_response") || strings.HasPrefix(metric, "lbctl_upstream")
}
