package registration

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"lbctl/internal/consultest"
)

// patience is for conditions that take a fraction of a second on a quiet machine.
const patience = 20 * time.Second

// running is a registrar in the test's own process.
type running struct {
	*Registrar
	t      *testing.T
	lines  *testWriter
	cancel context.CancelFunc
	ended  chan error
	once   sync.Once
	err    error
}

func config(t *testing.T, agent *consultest.Server, args ...string) Config {
	t.Helper()
	cfg, err := parse(map[string]string{
		"APP_NAME": "web", "APP_PORT": "7777", "SERVICE_ID": "web-1", "HEALTH_CHECK_TYPE": "ttl",
		"CONSUL_HTTP_ADDR": agent.Addr, "DRAIN": "0s", "CHECK_INTERVAL": "200ms",
	}, args...)
	require.NoError(t, err)
	return cfg
}

func run(t *testing.T, cfg Config) *running {
	t.Helper()
	lines := &testWriter{t: t}
	registrar, err := New(cfg, slog.New(slog.NewTextHandler(lines, nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Registrar: registrar, t: t, lines: lines, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- registrar.Run(ctx) }()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// stop asks the registrar to leave and waits until it has.
func (r *running) stop() error {
	r.once.Do(func() {
		r.cancel()
		select {
		case r.err = <-r.ended:
		case <-time.After(patience):
			r.t.Errorf("Run() did not end within %s", patience)
		}
	})
	return r.err
}

// end waits until the registrar ends by itself, and returns its error.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- err // for stop
		return err
	case <-time.After(patience):
		require.Fail(r.t, "Run() did not end by itself", "within %s", patience)
		return nil
	}
}

// log returns the log so far.
func (r *running) log() string {
	r.lines.mu.Lock()
	defer r.lines.mu.Unlock()
	return r.lines.text.String()
}

func (r *running) awaitLog(part string) {
	r.t.Helper()
	consultest.Eventually(r.t, patience, func() (bool, string) {
		return strings.Contains(r.log(), part), fmt.Sprintf("no line with %q", part)
	})
}

type testWriter struct {
	t    *testing.T
	mu   sync.Mutex
	text strings.Builder
}

func (w *testWriter) Write(line []byte) (int, error) {
	w.t.Logf("%s", line)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(line)
}

// entry returns the service in Consul's catalog; nil if it is not there.
func entry(agent *consultest.Server, name string) (*api.ServiceEntry, error) {
	entries, _, err := agent.Client().Health().Service(name, "", false, nil)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	return entries[0], nil
}

func awaitStatus(t *testing.T, agent *consultest.Server, name, want string) *api.ServiceEntry {
	t.Helper()
	var found *api.ServiceEntry
	consultest.Eventually(t, patience, func() (bool, string) {
		var err error
		found, err = entry(agent, name)
		if err != nil {
			return false, err.Error()
		}
		got := "absent"
		if found != nil {
			got = found.Checks.AggregatedStatus()
		}
		return got == want, fmt.Sprintf("%s is %s, want %s", name, got, want)
	})
	return found
}

// awaitKnown waits until the agent itself has the service. The catalog may not show that the
// service was gone, since the agent sends it changes together.
func awaitKnown(t *testing.T, agent *consultest.Server, id string) {
	t.Helper()
	consultest.Eventually(t, patience, func() (bool, string) {
		_, _, err := agent.Client().Agent().Service(id, nil)
		return err == nil, fmt.Sprint(err)
	})
}

func TestRegisterAndLeave(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	cfg := config(t, agent, "--tags=grpc_server,v1", "--meta=lb-host=a.example,b.example", "--weight=10/2")
	r := run(t, cfg)

	got := awaitStatus(t, agent, "web", api.HealthPassing)
	assert.Equal(t, "web-1", got.Service.ID)
	assert.Equal(t, 7777, got.Service.Port)
	assert.Empty(t, got.Service.Address, "Consul takes the node's address")
	assert.Equal(t, []string{"grpc_server", "v1"}, got.Service.Tags)
	assert.Equal(t, map[string]string{"lb-host": "a.example,b.example", ownerKey: r.owner}, got.Service.Meta)
	assert.Equal(t, api.AgentWeights{Passing: 10, Warning: 2}, got.Service.Weights)

	require.NoError(t, r.stop())
	awaitStatus(t, agent, "web", "absent")
}

func TestAddressIsRegistered(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	run(t, config(t, agent, "--address=10.1.2.3"))
	assert.Equal(t, "10.1.2.3", awaitStatus(t, agent, "web", api.HealthPassing).Service.Address)
}

func TestPlace(t *testing.T) {
	own := ownAddress(t)
	tests := []struct {
		name, agent, address string
		want                 string
		local                bool
	}{
		{"an agent on loopback leaves the address to Consul", "127.0.0.1:8500", "", "", true},
		{"an agent on another loopback address does too", "http://127.0.1.101:8500", "", "", true},
		{"an agent behind a unix socket does too", "unix:///run/consul.sock", "", "", true},
		{"with an agent elsewhere, our address on the way to it is registered", own + ":8500", "", own, false},
		{"an agent elsewhere without a port", "https://" + own, "", own, false},
		{"a given address wins", own + ":8500", "web.example", "web.example", false},
		{"a given address doesn't make a local agent remote", "localhost:8500", "10.1.2.3", "10.1.2.3", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, err := newAgent(Config{ConsulAddr: test.agent}, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			address, local, err := a.place(t.Context(), Config{Address: test.address})
			require.NoError(t, err)
			assert.Equal(t, test.want, address)
			assert.Equal(t, test.local, local)
		})
	}
}

// ownAddress returns an address of this machine that isn't loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLoopback() && network.IP.To4() != nil {
			return network.IP.String()
		}
	}
	t.Skip("SKIPPED: this machine has no IPv4 address but loopback")
	return ""
}

func TestRegisterAgain(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	client := agent.Client().Agent()
	run(t, config(t, agent, "--tags=a"))
	awaitStatus(t, agent, "web", api.HealthPassing)

	t.Run("when somebody deregistered it", func(t *testing.T) {
		require.NoError(t, client.ServiceDeregister("web-1"))
		awaitKnown(t, agent, "web-1")
		awaitStatus(t, agent, "web", api.HealthPassing)
	})
	t.Run("when somebody changed it", func(t *testing.T) {
		require.NoError(t, client.ServiceRegister(&api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 1, Tags: []string{"b"}}))
		consultest.Eventually(t, patience, func() (bool, string) {
			got, err := entry(agent, "web")
			if err != nil || got == nil {
				return false, fmt.Sprint("web is absent: ", err)
			}
			return got.Service.Port == 7777 && got.Service.Tags[0] == "a", fmt.Sprintf("port %d, tags %v", got.Service.Port, got.Service.Tags)
		})
	})
	t.Run("when somebody removed its check", func(t *testing.T) {
		require.NoError(t, client.CheckDeregister("service:web-1"))
		consultest.Eventually(t, patience, func() (bool, string) {
			checks, err := client.ChecksWithFilter(`ServiceID == "web-1"`)
			return err == nil && len(checks) == 1, fmt.Sprint("checks ", checks, err)
		})
		awaitStatus(t, agent, "web", api.HealthPassing)
	})
	t.Run("when the agent came back without its data", func(t *testing.T) {
		agent.Stop()
		agent.Start()
		agent.WaitReady()
		awaitKnown(t, agent, "web-1")
		awaitStatus(t, agent, "web", api.HealthPassing)
	})
}

// A registrar does not write an entry that is as wanted, so its status does not flap.
func TestUnchangedIsNotWritten(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	server := grpcServer(t, healthpb.HealthCheckResponse_SERVING)
	for name, args := range map[string][]string{
		"grpc with everything": {
			"--id=grpc-1", "--check-type=grpc", "--port=" + server.port, "--tags=b,a", "--meta=k=v", "--weight=7/0",
			"--address=127.0.0.1", "--deregister-after=never",
		},
		"http": {"--id=http-1", "--check-type=http", "--check-tls=skip-verify", "--ready-timeout=0s"},
		"tcp":  {"--id=tcp-1", "--check-type=tcp", "--ready-timeout=0s"},
		"ttl":  {"--id=ttl-1"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, agent, args...)
			r, err := New(cfg, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			_, err = r.register(t.Context(), true)
			require.NoError(t, err)
			want, err := r.agent.wanted(t.Context(), cfg, r.owner)
			require.NoError(t, err)
			found, err := r.agent.find(t.Context(), cfg.ID)
			require.NoError(t, err)
			assert.Empty(t, found.difference(want))
		})
	}
}

func TestRegisteringAgainDoesNotFlap(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	server := grpcServer(t, healthpb.HealthCheckResponse_SERVING)
	cfg := config(t, agent, "--check-type=grpc", "--port="+server.port, "--check-interval=1m")
	first, err := New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = first.register(t.Context(), true)
	require.NoError(t, err)
	awaitStatus(t, agent, "web", api.HealthPassing)

	// This holds even for a registrar that hasn't reached the server.
	_, err = first.register(t.Context(), false)
	require.NoError(t, err)
	checks, err := agent.Client().Agent().Checks()
	require.NoError(t, err)
	assert.Equal(t, api.HealthPassing, checks["service:web-1"].Status)
}

func TestLeftOverMaintenance(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	client := agent.Client().Agent()
	require.NoError(t, client.ServiceRegister(&api.AgentServiceRegistration{ID: "web-1", Name: "web"}))

	t.Run("of a killed registrar is cleared", func(t *testing.T) {
		require.NoError(t, client.EnableServiceMaintenance("web-1", drainReason))
		awaitStatus(t, agent, "web", api.HealthMaint)
		r := run(t, config(t, agent))
		awaitStatus(t, agent, "web", api.HealthPassing)
		require.NoError(t, r.stop())
	})
	t.Run("of an operator stays", func(t *testing.T) {
		require.NoError(t, client.ServiceRegister(&api.AgentServiceRegistration{ID: "web-1", Name: "web"}))
		require.NoError(t, client.EnableServiceMaintenance("web-1", "changing a disk"))
		run(t, config(t, agent))
		consultest.Eventually(t, patience, func() (bool, string) {
			service, _, err := client.Service("web-1", nil)
			return err == nil && service.Port == 7777, "not registered yet"
		})
		awaitStatus(t, agent, "web", api.HealthMaint)
	})
}

type testServer struct {
	health *health.Server
	port   string
}

func grpcServer(t *testing.T, status healthpb.HealthCheckResponse_ServingStatus) testServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	s := testServer{health: health.NewServer(), port: strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)}
	s.health.SetServingStatus("", status)
	healthpb.RegisterHealthServer(server, s.health)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return s
}

// With an interval of a minute, Consul's own check plays no role.
func TestReadyServerIsPassingAtOnce(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	server := grpcServer(t, healthpb.HealthCheckResponse_NOT_SERVING)
	run(t, config(t, agent, "--check-type=grpc", "--port="+server.port, "--check-interval=1m", "--ready-timeout=1m"))

	// It waits until the server is ready ...
	never := time.After(500 * time.Millisecond)
	for waiting := true; waiting; {
		select {
		case <-never:
			waiting = false
		case <-time.After(20 * time.Millisecond):
			got, err := entry(agent, "web")
			require.NoError(t, err)
			require.Nil(t, got, "registered before the server was ready")
		}
	}
	// ... and then says so itself.
	server.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	awaitStatus(t, agent, "web", api.HealthPassing)
}

func TestServerThatDoesNotGetReadyIsCritical(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	server := grpcServer(t, healthpb.HealthCheckResponse_NOT_SERVING)
	run(t, config(t, agent, "--check-type=grpc", "--port="+server.port, "--ready-timeout=300ms"))
	awaitStatus(t, agent, "web", api.HealthCritical)

	server.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	awaitStatus(t, agent, "web", api.HealthPassing)
}

func TestGRPCCheckOfAnHTTPServerNamesTheSetting(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	check := Check{Type: CheckGRPC, TLS: TLSOff, Timeout: patience}
	assert.ErrorContains(t, check.probe(t.Context(), server.Listener.Addr().String()), "should HEALTH_CHECK_TYPE be http?")
}

func TestChecksOfConsulAgreeWithOurs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	good := grpcServer(t, healthpb.HealthCheckResponse_SERVING)
	bad := grpcServer(t, healthpb.HealthCheckResponse_NOT_SERVING)
	bad.health.SetServingStatus("protos.Ping", healthpb.HealthCheckResponse_SERVING)
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(http.ResponseWriter, *http.Request) {})
	plain := httptest.NewServer(mux)
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(mux)
	t.Cleanup(secure.Close)

	tests := []struct {
		name string
		args []string
		want string
	}{
		{"gRPC, serving", []string{"--check-type=grpc", "--check-endpoint=127.0.0.1:" + good.port}, api.HealthPassing},
		{"gRPC, not serving", []string{"--check-type=grpc", "--check-endpoint=127.0.0.1:" + bad.port}, api.HealthCritical},
		{"gRPC, one service", []string{"--check-type=grpc", "--check-endpoint=127.0.0.1:" + bad.port + "/protos.Ping"}, api.HealthPassing},
		{"gRPC, an unknown service", []string{"--check-type=grpc", "--check-endpoint=127.0.0.1:" + good.port + "/no.Such"}, api.HealthCritical},
		{"gRPC, TLS wanted but not spoken", []string{"--check-type=grpc", "--check-tls=skip-verify", "--check-endpoint=127.0.0.1:" + good.port}, api.HealthCritical},
		{"HTTP 200", []string{"--check-type=http", "--check-endpoint=" + plain.URL + "/good"}, api.HealthPassing},
		{"HTTP 404", []string{"--check-type=http", "--check-endpoint=" + plain.URL + "/bad"}, api.HealthCritical},
		{"HTTPS, unknown certificate", []string{"--check-type=http", "--check-endpoint=" + secure.URL + "/good"}, api.HealthCritical},
		{"HTTPS, any certificate", []string{"--check-type=http", "--check-tls=skip-verify", "--check-endpoint=" + secure.URL + "/good"}, api.HealthPassing},
		{"TCP, open", []string{"--check-type=tcp", "--check-endpoint=127.0.0.1:" + good.port}, api.HealthPassing},
		{"TCP, closed", []string{"--check-type=tcp", "--check-endpoint=127.0.0.1:1"}, api.HealthCritical},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			name := fmt.Sprintf("web-%d", i)
			cfg := config(t, agent, append(test.args, "--name="+name, "--id="+name)...)
			r, err := New(cfg, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			ours := api.HealthPassing
			if err := r.probe(t.Context()); err != nil {
				t.Logf("probe: %v", err)
				ours = api.HealthCritical
			}
			assert.Equal(t, test.want, ours, "our own probe")

			// Start from the opposite: only Consul's check can change it.
			_, err = r.register(t.Context(), test.want == api.HealthCritical)
			require.NoError(t, err)
			awaitStatus(t, agent, name, test.want)
		})
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	cfg := config(t, agent, "--check-interval=300ms")
	r, err := New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = r.register(t.Context(), true)
	require.NoError(t, err)
	awaitStatus(t, agent, "web", api.HealthCritical) // there are no heartbeats

	run(t, cfg)
	awaitStatus(t, agent, "web", api.HealthPassing)
	// Consul waits half as long for a heartbeat. Without one, the instance would become and
	// stay critical.
	time.Sleep(6 * cfg.Check.Interval)
	awaitStatus(t, agent, "web", api.HealthPassing)
}

func TestDrainServesOnAndHurryCutsIt(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := run(t, config(t, agent, "--drain=1h"))
	awaitStatus(t, agent, "web", api.HealthPassing)
	r.cancel()
	got := awaitStatus(t, agent, "web", api.HealthMaint)
	assert.Len(t, got.Checks, 3, "serfHealth, the registrar's check, maintenance")
	r.Hurry()
	require.NoError(t, r.stop())
	awaitStatus(t, agent, "web", "absent")
}

func TestTenAttempts(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	agent.Stop()
	cfg := config(t, agent, "--attempt-delay=1ms")
	assert.Equal(t, 10, cfg.Attempts)
	r := run(t, cfg)
	err := <-r.ended
	r.ended <- err
	require.ErrorContains(t, err, fmt.Sprintf(`register "web-1" with the Consul agent at %s: 10 attempts failed, the last one: `, agent.Addr))
	require.ErrorContains(t, err, "connection refused")
}

func TestAgentThatComesLate(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	agent.Stop()
	run(t, config(t, agent, "--attempt-delay=100ms", "--attempts=1000"))
	agent.Start()
	agent.WaitReady()
	awaitStatus(t, agent, "web", api.HealthPassing)
}

func TestAgentAwayAtTheEnd(t *testing.T) {
	t.Parallel()
	t.Run("gone", func(t *testing.T) {
		agent := consultest.Start(t)
		r := run(t, config(t, agent))
		awaitStatus(t, agent, "web", api.HealthPassing)
		agent.Stop()
		require.NoError(t, r.stop()) // stop fails if the registrar hangs
	})
	t.Run("paused", func(t *testing.T) {
		agent := consultest.Start(t)
		r := run(t, config(t, agent))
		awaitStatus(t, agent, "web", api.HealthPassing)
		agent.Pause()
		require.NoError(t, r.stop())
	})
}

func TestTokens(t *testing.T) {
	agent := consultest.Start(t, consultest.ACL())
	t.Run("the documented rules are enough", func(t *testing.T) {
		t.Setenv(api.HTTPTokenEnvName, agent.NewToken(`service "web" { policy = "write" } node_prefix "" { policy = "read" }`))
		r := run(t, config(t, agent))
		awaitStatus(t, agent, "web", api.HealthPassing)
		require.NoError(t, agent.Client().Agent().ServiceDeregister("web-1"))
		awaitKnown(t, agent, "web-1")
		awaitStatus(t, agent, "web", api.HealthPassing)
		require.NoError(t, r.stop())
		awaitStatus(t, agent, "web", "absent")
	})
	t.Run("the error of a refusal names the remedy", func(t *testing.T) {
		t.Setenv(api.HTTPTokenEnvName, agent.NewToken(`service "other" { policy = "write" }`))
		r := run(t, config(t, agent, "--attempts=1"))
		err := <-r.ended
		r.ended <- err
		require.ErrorContains(t, err, `want a token (CONSUL_HTTP_TOKEN) with the rules: service "web" { policy = "write" }`)
	})
	t.Run("the error of a refusal names the token file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(file, []byte(agent.NewToken(`service "other" { policy = "write" }`)), 0o600))
		t.Setenv(api.HTTPTokenFileEnvName, file)
		r := run(t, config(t, agent, "--attempts=1"))
		require.ErrorContains(t, r.end(), fmt.Sprintf("want a token (CONSUL_HTTP_TOKEN_FILE=%q) with the rules: ", file))
	})
	t.Run("the error of a refusal names both variables", func(t *testing.T) {
		r := run(t, config(t, agent, "--attempts=1"))
		require.ErrorContains(t, r.end(), "want a token (CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE) with the rules: ")
	})
}
