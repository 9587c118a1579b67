//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
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
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lbctl/build/observability"
	"lbctl/internal/lbtest"
	"lbctl/protos"
)

// observed are the addresses of docker-compose.observability.yaml's programs.
type observed struct{ prometheus, alertmanager, grafana, logs, traces string }

// observedPorts chooses addresses, and returns the environment that gives them to compose.
func observedPorts(t *testing.T) (observed, []string) {
	var env []string
	address := func(variable string) string {
		a := "127.0.0.1:" + freePort(t)
		env = append(env, variable+"="+a)
		return "http://" + a
	}
	o := observed{
		prometheus:   address("PROMETHEUS_PORT"),
		alertmanager: address("ALERTMANAGER_PORT"),
		grafana:      address("GRAFANA_PORT"),
		logs:         address("LOGS_PORT"),
		traces:       address("TRACES_PORT"),
	}
	address("OTLP_PORT")
	return o, env
}

// observability starts Prometheus and its companions beside the cluster, makes calls of all kinds,
// and finds them in metrics, logs and traces.
func (c *docker) observability(t *testing.T) {
	if os.Getenv("LB_E2E_OBSERVABILITY") == "off" {
		t.Skip("LB_E2E_OBSERVABILITY=off")
	}
	c.make(t, "observability")
	c.web(t)
	stop := c.calls(t, c.tcp(t))
	defer stop()

	t.Run("Prometheus reaches all that it should", c.targets)
	t.Run("a request is in the log store, and its trace in the trace store", c.logAndTrace)
	t.Run("a notification of an alert arrives in the log store", c.notification)
	t.Run("Grafana serves", func(t *testing.T) {
		for _, path := range []string{"/api/health", "/d/lbctl-services/services"} {
			resp, err := http.Get(c.observed.grafana + path)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, http.StatusOK, resp.StatusCode, path)
		}
	})
	t.Run("every query of rules and dashboards finds something", c.queries)
}

// web registers an HTTP service with two instances in this process: one answers every request with
// 503, and the other one those of /broken. nginx tries the other one after a 503.
func (c *docker) web(t *testing.T) {
	gateway := c.gateway(t)
	for n, answers := range []func(path string) int{
		func(string) int { return http.StatusServiceUnavailable },
		func(path string) int {
			if path == "/broken" {
				return http.StatusServiceUnavailable
			}
			return http.StatusOK
		},
	} {
		listener, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
		require.NoError(t, err)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answers(r.URL.Path)) }))
		server.Listener.Close()
		server.Listener = listener
		server.Start()
		t.Cleanup(server.Close)
		version := fmt.Sprintf("v%d", n+1)
		require.NoError(t, c.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Name: "web", ID: "web-" + version, Address: gateway, Port: listener.Addr().(*net.TCPAddr).Port,
			Meta: map[string]string{
				"lb-protocol": "http", "lb-host": "web.localhost", "lb-check": "none", "lb-version": version,
				"lb-retry-on": "error,http_503",
				"lb-paths":    `{"/limited": {"limit.service.rate": "1/s"}}`,
			},
		}))
		t.Cleanup(func() { c.consul.Agent().ServiceDeregister("web-" + version) })
	}
	lbtest.Eventually(t, "the service web is served", func() error {
		if got := c.get("/"); got != http.StatusOK {
			return fmt.Errorf("status %d", got)
		}
		return nil
	})
}

// The ports of the TCP services, in the container of the load balancer only.
const (
	tcpPort    = "7001"
	sharedPort = "7002" // for services with a host
)

// tcp registers a TCP service with two instances, of which only one listens, and one with a host. The
// function that it returns has a session with the first, and one with a host that neither has.
func (c *docker) tcp(t *testing.T) (sessions func()) {
	gateway := c.gateway(t)
	listener, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello") //nolint:errcheck // the client sees it
			conn.Close()
		}
	}()
	listens := listener.Addr().(*net.TCPAddr).Port
	closed, err := strconv.Atoi(freePort(t))
	require.NoError(t, err)
	for _, instance := range []struct {
		id, name string
		port     int
		meta     map[string]string
	}{
		{"tcp-1", "tcp", listens, map[string]string{"lb-port": tcpPort}},
		{"tcp-2", "tcp", closed, map[string]string{"lb-port": tcpPort}},
		{"tcp-shared-1", "tcp-shared", listens, map[string]string{"lb-port": sharedPort, "lb-host": "tcp.localhost"}},
	} {
		instance.meta["lb-protocol"], instance.meta["lb-check"] = "tcp", "none"
		require.NoError(t, c.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Name: instance.name, ID: instance.id, Address: gateway, Port: instance.port, Meta: instance.meta,
		}))
		t.Cleanup(func() { c.consul.Agent().ServiceDeregister(instance.id) })
	}
	balancer := c.address(t, c.containers(t, "load-balancer")[0])
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	session := func(port string) error {
		conn, err := dialer.Dial("tcp", net.JoinHostPort(balancer, port))
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	ofNobody := func() {
		conn, err := tls.DialWithDialer(dialer, "tcp", net.JoinHostPort(balancer, sharedPort), &tls.Config{ServerName: "nobody.localhost"})
		if err == nil {
			conn.Close()
		}
	}
	lbtest.Eventually(t, "the service tcp is served", func() error { return session(tcpPort) })
	return func() {
		session(tcpPort) //nolint:errcheck // one kind of session
		ofNobody()
	}
}

// gateway is the address of this machine in the network of the containers.
func (c *docker) gateway(t *testing.T) string {
	return strings.TrimSpace(c.run(t, "docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", c.project+"_cluster"))
}

// get is the status of a request to the service web, 0 if there is no answer.
func (c *docker) get(path string) int {
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+c.httpPort+path, nil)
	if err != nil {
		return 0
	}
	req.Host = "web.localhost"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// calls makes calls of all kinds, a few a second, until the function that it returns is called:
// good ones, failing ones, retried ones, refused ones, one of no service, and sessions.
func (c *docker) calls(t *testing.T, sessions func()) (stop func()) {
	conn, err := grpc.NewClient("127.0.0.1:"+c.grpcPort, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	ticker, done, ended := time.NewTicker(200*time.Millisecond), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			protos.NewPingClient(conn).SayHello(t.Context(), &protos.PingMessage{})                        //nolint:errcheck // one kind of call
			conn.Invoke(t.Context(), "/protos.Ping/Nothing", &protos.PingMessage{}, &protos.PingMessage{}) //nolint:errcheck // UNIMPLEMENTED
			for _, path := range []string{"/", "/broken", "/limited", "/limited"} {
				c.get(path)
			}
			http.Get("http://127.0.0.1:" + c.httpPort + "/of-no-service") //nolint:errcheck,bodyclose // 404
			sessions()
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		ticker.Stop()
		conn.Close()
	}
}

func (c *docker) targets(t *testing.T) {
	c.eventually(t, "all targets are up", func() error {
		var targets struct {
			Data struct {
				ActiveTargets []struct {
					Labels    map[string]string
					Health    string
					LastError string
				}
			}
		}
		if err := getJSON(c.observed.prometheus+"/api/v1/targets", &targets); err != nil {
			return err
		}
		jobs := map[string]bool{}
		for _, target := range targets.Data.ActiveTargets {
			if target.Health != "up" {
				return fmt.Errorf("%v is %s: %s", target.Labels, target.Health, target.LastError)
			}
			jobs[target.Labels["job"]] = true
		}
		for _, job := range []string{"lbctl", "registrar", "server", "consul", "prometheus", "alertmanager", "logs"} {
			if !jobs[job] {
				return fmt.Errorf("no target of the job %s: %v", job, jobs)
			}
		}
		return nil
	})
}

// logAndTrace finds a call by its request id in the log store, and from there its trace.
func (c *docker) logAndTrace(t *testing.T) {
	conn, err := grpc.NewClient("127.0.0.1:"+c.grpcPort, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	id := "e2e-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", id)
	err = conn.Invoke(ctx, "/protos.Ping/Nothing", &protos.PingMessage{}, &protos.PingMessage{})
	require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)

	var line map[string]string
	c.eventually(t, "the line is in the log store", func() error {
		lines, err := c.logLines(`event.line.request_id:="` + id + `"`)
		if err == nil && len(lines) != 1 {
			err = fmt.Errorf("%d lines", len(lines))
		}
		if err == nil {
			line = lines[0]
		}
		return err
	})
	assert.Equal(t, "hello_server", line["event.line.service"])
	assert.Equal(t, "UNIMPLEMENTED", line["event.line.grpc_status"])
	assert.Equal(t, "/protos.Ping/Nothing", line["event.line.path"])
	assert.Contains(t, line["event.tag"], "load-balancer")
	require.Regexp(t, "^[0-9a-f]{32}$", line["event.line.trace_id"])

	c.eventually(t, "the trace is in the trace store, from the load balancer to the server", func() error {
		var traces struct {
			Data []struct {
				Spans []struct {
					SpanID     string
					ProcessID  string
					References []struct{ SpanID string }
				}
				Processes map[string]struct{ ServiceName string }
			}
		}
		if err := getJSON(c.observed.traces+"/api/traces/"+line["event.line.trace_id"], &traces); err != nil {
			return err
		}
		service := map[string]string{} // of a span
		for _, s := range traces.Data[0].Spans {
			service[s.SpanID] = traces.Data[0].Processes[s.ProcessID].ServiceName
		}
		for _, s := range traces.Data[0].Spans {
			if service[s.SpanID] == "hello_server" && len(s.References) == 1 && service[s.References[0].SpanID] == "lbctl" {
				return nil
			}
		}
		return fmt.Errorf("no span of hello_server is the child of one of lbctl: %v", service)
	})

	c.eventually(t, "a server's own log is in the log store", func() error {
		lines, err := c.logLines(`event.tag:~"hello_server" | limit 1`)
		if err == nil && len(lines) == 0 {
			err = fmt.Errorf("no line")
		}
		return err
	})
}

func (c *docker) logLines(query string) ([]map[string]string, error) {
	resp, err := http.PostForm(c.observed.logs+"/select/logsql/query", url.Values{"query": {query}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", query, resp.Status)
	}
	var lines []map[string]string
	for decoder := json.NewDecoder(resp.Body); decoder.More(); {
		var line map[string]string
		if err := decoder.Decode(&line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// notification sends Alertmanager an alert as Prometheus does. The receiver is the log store.
func (c *docker) notification(t *testing.T) {
	summary := "e2e " + strconv.FormatInt(time.Now().UnixNano(), 36)
	alert := fmt.Sprintf(`[{"labels": {"alertname": "E2E", "severity": "critical"}, "annotations": {"summary": %q}}]`, summary)
	resp, err := http.Post(c.observed.alertmanager+"/api/v2/alerts", "application/json", strings.NewReader(alert))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	c.eventually(t, "the notification is in the log store", func() error {
		lines, err := c.logLines(`_msg:="` + summary + `"`)
		if err == nil && len(lines) == 0 {
			err = fmt.Errorf("no line")
		}
		if err == nil {
			assert.Equal(t, "firing", lines[0]["status"])
		}
		return err
	})
}

// queries runs every query of rules and dashboards against Prometheus, those of alerts without
// their thresholds, because nothing is wrong.
func (c *docker) queries(t *testing.T) {
	all, err := observability.Queries("build/observability")
	require.NoError(t, err)
	// The dashboard of all services matches names, that of one compares them.
	variables := strings.NewReplacer(`=~"$service"`, `=~".*"`, "$service", "web", "$node", ".*", "$__rate_interval", "1m")
	type part struct{ where, expr string }
	var missing []part
	for _, query := range all {
		for _, expr := range observability.WithoutThresholds(query.Expr) {
			missing = append(missing, part{query.Where, variables.Replace(expr)})
		}
	}
	t.Logf("%d queries", len(missing))
	c.eventually(t, "every query finds something", func() error {
		var failed error
		missing = slices.DeleteFunc(missing, func(p part) bool {
			var answer struct{ Data struct{ Result []any } }
			if err := getJSON(c.observed.prometheus+"/api/v1/query?query="+url.QueryEscape(p.expr), &answer); err != nil {
				failed = fmt.Errorf("%s: %w", p.where, err)
			}
			return len(answer.Data.Result) > 0
		})
		if len(missing) == 0 {
			return nil
		}
		var names []string
		for _, p := range missing {
			names = append(names, p.where+": "+p.expr)
		}
		return errors.Join(fmt.Errorf("%d find nothing:\n%s", len(missing), strings.Join(names, "\n")), failed)
	})

	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	require.NoError(t, getJSON(c.observed.prometheus+"/api/v1/rules", &rules))
	for _, group := range rules.Data.Groups {
		for _, rule := range group.Rules {
			assert.Equal(t, "ok", rule.Health, "%s: %s", rule.Name, rule.LastError)
		}
	}
}

// eventually is like lbtest.Eventually, with the patience that scrapes and batches of lines take.
func (c *docker) eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := condition()
		if err == nil {
			return
		}
		require.True(t, time.Now().Before(deadline), "wait until %s: %v", what, err)
		time.Sleep(time.Second)
	}
}

func getJSON(url string, into any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
