package render

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/certificates"
	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
	"lbctl/internal/nginx"
	"lbctl/internal/nginxtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Options of the instances in tests.
var (
	registration = consultest.Entry
	tags         = consultest.Tags
	meta         = consultest.Meta
	status       = consultest.Status
	weights      = consultest.Weights
	onNode       = consultest.OnNode
)

// parseAll makes services from registrations.
func parseAll(registrations ...*api.ServiceEntry) []endpoints.Service {
	byName := map[string][]*api.ServiceEntry{}
	for _, r := range registrations {
		byName[r.Service.Service] = append(byName[r.Service.Service], r)
	}
	var services []endpoints.Service
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		services = append(services, metadata.Parse(name, byName[name], metadata.Reserved{Ports: []int{5000, 8080, 9119}}))
	}
	return services
}

// testSettings has settings that don't depend on the machine.
func testSettings(nginxVersion string) Settings {
	return Settings{
		Listeners:    PlainListeners(Listen{"0.0.0.0:5000"}, Listen{"0.0.0.0:8080"}),
		Workers:      2,
		OpenFiles:    65536,
		RunDir:       "/var/lib/lbctl/run",
		NginxVersion: nginxVersion,
	}
}

// testNames resolves db.example and nothing else.
func testNames() *names {
	n := newNames()
	n.lookup = func(_ context.Context, host string) ([]string, error) {
		if host == "db.example" {
			return []string{"10.0.9.2", "10.0.9.1"}, nil
		}
		return nil, errors.New("no such host")
	}
	return n
}

// scenarios are catalogs that together reach every branch of the templates.
var scenarios = []struct {
	name          string
	registrations []*api.ServiceEntry
	settings      func(*Settings)
	nginx         []string // default 1.30.6 only
}{
	{name: "empty", nginx: []string{"1.22.1", "1.26.3", "1.30.6"}},
	{
		name: "one-grpc-service",
		registrations: []*api.ServiceEntry{
			registration("hello_server", "hello-1", "10.0.0.1", 7777, tags("grpc_server")),
			registration("hello_server", "hello-2", "10.0.0.2", 7777, tags("grpc_server"), weights(3, 1)),
			registration("hello_server", "hello-3", "fd00::3", 7777, tags("grpc_server"), weights(3, 2), status("warning")),
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "hosts-and-paths",
		registrations: []*api.ServiceEntry{
			registration("any", "any-1", "10.0.1.1", 80, tags("http_server")),
			registration("api", "api-1", "10.0.2.1", 80, meta("lb-protocol", "http", "lb-path", "/api,/v2/api/")),
			registration("shop", "shop-1", "10.0.3.1", 443, meta("lb-protocol", "https", "lb-host", "shop.example.com, www.shop.example.com")),
			registration("shop-cart", "cart-1", "10.0.4.1", 80, meta("lb-protocol", "http", "lb-host", "shop.example.com", "lb-path", "/cart")),
			registration("wild", "wild-1", "10.0.5.1", 80, meta("lb-protocol", "http", "lb-host", "*.example.com", "lb-path", "/w")),
			registration("ping", "ping-1", "10.0.6.1", 7777, meta("lb-protocol", "grpc", "lb-path", "/protos.Ping")),
			registration("ping-stream", "ping-stream-1", "10.0.7.1", 7777, meta("lb-protocol", "grpc", "lb-path", "/protos.Ping/SayHelloStream")),
			registration("secure", "secure-1", "10.0.8.1", 7443, meta("lb-protocol", "grpcs", "lb-host", "secure.example.com")),
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "kinds-of-routes",
		registrations: []*api.ServiceEntry{
			registration("any", "any-1", "10.0.1.1", 80, tags("http_server")),
			registration("health", "health-1", "10.0.2.1", 80, meta("lb-protocol", "http", "lb-path", "=/health")),
			registration("api", "api-1", "10.0.3.1", 80, meta("lb-protocol", "http", "lb-path", "/api")),
			registration("api-writes", "api-writes-1", "10.0.4.1", 80, meta("lb-protocol", "http", "lb-path", "/api", "lb-method", "POST,PUT")),
			registration("api-v2", "api-v2-1", "10.0.5.1", 80, meta("lb-protocol", "http", "lb-path", "/api", "lb-method", "POST", "lb-header", "X-Version=v2, x-region=eu")),
			registration("canary", "canary-1", "10.0.6.1", 80, meta("lb-protocol", "http", "lb-host", "shop.example.com", "lb-header", "x-version=v2")),
			registration("down", "down-1", "10.0.6.1", 80, meta("lb-protocol", "http", "lb-host", "shop.example.com", "lb-header", "x-version=v3"), status("maintenance")),
			registration("package", "package-1", "10.0.7.1", 7777, meta("lb-grpc", "shop.*")),
			registration("cart", "cart-1", "10.0.8.1", 7777, meta("lb-grpc", "shop.Cart,shop.Stock/Count")),
			registration("cart-v2", "cart-v2-1", "10.0.9.1", 7777, meta("lb-grpc", "shop.Cart", "lb-header", "x-version=v2")),
			registration("found", "found-1", "10.0.9.2", 7777, tags("grpc_server"), meta("grpc-services", "protos.Ping")),
			registration("found-too", "found-too-1", "10.0.9.3", 7777, tags("grpc_server"), meta("grpc-services", "protos.Pong")),
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "health",
		registrations: []*api.ServiceEntry{
			registration("any", "any-1", "10.0.1.1", 80, tags("http_server")),
			registration("shop", "shop-1", "10.0.2.1", 80, meta("lb-protocol", "http", "lb-host", "shop.example.com", "lb-path", "/cart")),
			registration("blog", "blog-1", "10.0.3.1", 80, meta("lb-protocol", "http", "lb-host", "blog.example.com")),
			registration("hello_server", "hello-1", "10.0.4.1", 7777, tags("grpc_server")),
		},
		settings: func(s *Settings) {
			s.Health = Health{HTTP: HealthBeforeDefault, GRPC: HealthBeforeDefault, Networks: []string{"10.0.0.0/8", "fd00::/8"}}
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "listeners",
		registrations: []*api.ServiceEntry{
			registration("site", "site-1", "10.0.0.1", 80, tags("http_server")),
			registration("admin", "admin-1", "10.0.0.2", 80, meta("lb-protocol", "http", "lb-listen", "internal")),
			registration("metrics", "metrics-1", "10.0.0.3", 80, meta("lb-protocol", "http", "lb-path", "/metrics", "lb-listen", "internal")),
			registration("more", "more-1", "10.0.0.4", 80, meta("lb-protocol", "http", "lb-path", "/metrics", "lb-listen", "internal,https")),
			registration("lost", "lost-1", "10.0.0.5", 80, meta("lb-protocol", "http", "lb-path", "/lost", "lb-listen", "nowhere")),
			registration("hello_server", "hello-1", "10.0.0.6", 7777, tags("grpc_server")),
			registration("api", "api-1", "10.0.0.7", 7777, meta("lb-protocol", "grpc", "lb-host", "*.example.com")),
		},
		settings: func(s *Settings) {
			s.Listeners = []Listener{
				{Name: "grpc", Protocol: endpoints.GRPC, Listen: Listen{"0.0.0.0:5000"}},
				{Name: "http", Protocol: endpoints.HTTP, Listen: Listen{"0.0.0.0:8080"}, Redirect: 443},
				{Name: "plain", Protocol: endpoints.HTTP, Listen: Listen{"0.0.0.0:8081"}},
				{Name: "grpcs", Protocol: endpoints.GRPCS, Listen: Listen{"0.0.0.0:5443"}},
				{Name: "https", Protocol: endpoints.HTTPS, Listen: Listen{"0.0.0.0:8443"}, HSTS: 31536000},
				{Name: "internal", Protocol: endpoints.HTTP, Listen: Listen{"0.0.0.0:8082"}, ProxyProtocol: true},
			}
			s.TrustedProxies = []string{"10.1.0.0/16", "fd00::/8"}
			s.Certificates = certificates.Set{
				Default: "/var/lib/lbctl/certificates/a.pem",
				Hosts:   []certificates.HostCertificate{{Host: "*.example.com", File: "/var/lib/lbctl/certificates/wild card.pem"}},
				Clients: []certificates.Clients{{Host: "staff.example.com"}},
			}
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "circuit-breaker",
		registrations: []*api.ServiceEntry{
			registration("hello_server", "hello-1", "10.0.0.1", 7777, tags("grpc_server"), meta("lb-outlier-consecutive-errors", "5")),
			registration("web", "web-1", "10.0.0.2", 80, tags("http_server"), meta("lb-outlier-error-rate", "50")),
			registration("plain", "plain-1", "10.0.0.3", 80, meta("lb-protocol", "http", "lb-path", "/plain")),
		},
		settings: func(s *Settings) { s.AccessLogDir = "/run/lbctl log" },
	},
	{
		name: "access-log",
		registrations: []*api.ServiceEntry{
			registration("hello_server", "hello-1", "10.0.0.1", 7777, tags("grpc_server"), meta("lb-outlier-consecutive-errors", "5")),
			registration("web", "web-1", "10.0.0.2", 80, meta("lb-protocol", "http", "lb-path", "/orders", "lb-method", "GET", "lb-headers-response-set", "X-Team=shop")),
			registration("cache", "cache-1", "10.0.0.3", 6379, meta("lb-protocol", "tcp", "lb-port", "6379")),
			registration("db", "db-1", "10.0.0.4", 5432, meta("lb-protocol", "tcp", "lb-port", "5432", "lb-host", "db.example.com")),
		},
		settings: func(s *Settings) {
			s.AccessLogDir, s.LogRequests, s.InFlight = "/run/lbctl log", true, true
			s.Tracing, s.TraceSample = true, 0.125
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "policies-of-traffic",
		registrations: []*api.ServiceEntry{
			registration("web", "web-1", "10.0.1.1", 80, tags("http_server"), weights(5000, 1), meta(
				"lb-limit-address-rate", "100/s", "lb-limit-address-conns", "20", "lb-limit-header-rate", "x-api-key=30/m", "lb-limit-service-rate", "1000/s", "lb-limit-body", "10m",
				"lb-balance-algorithm", "hash:header:x-user", "lb-sticky-cookie", "lb", "lb-retry-on", "error,http_503", "lb-keepalive-connections", "128",
				"lb-paths", `{"/cart": {"retry.safe": true, "limit.address.rate": "1/m"}, "/files": {"limit.body": "1g", "buffering.request": true, "buffering.response": true, "buffering.response-memory": "1m"}}`)),
			registration("calls", "calls-1", "10.0.2.1", 7777, tags("grpc_server"), meta(
				"lb-limit-service-conns", "500", "lb-balance-algorithm", "least_conn", "lb-retry-tries", "2", "lb-keepalive-timeout", "10s",
				"lb-paths", `{"/shop.Cart/Get": {"retry.safe": true, "retry.on": "error,timeout", "timeout.read": "2s", "retry.timeout": "5s"}}`)),
			registration("redis", "redis-1", "10.0.3.1", 6379, meta("lb-protocol", "tcp", "lb-port", "6379", "lb-limit-address-conns", "5", "lb-balance-algorithm", "hash:address", "lb-retry-tries", "2")),
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "tcp",
		registrations: []*api.ServiceEntry{
			registration("cache", "cache-1", "10.0.0.1", 6379, meta("lb-protocol", "tcp", "lb-port", "6379")),
			registration("cache", "cache-2", "10.0.0.2", 6379, meta("lb-protocol", "tcp", "lb-port", "6379")),
			registration("down", "down-1", "10.0.0.3", 5432, meta("lb-port", "5432"), status("maintenance")),
		},
	},
	{
		name: "tcp-tls",
		registrations: []*api.ServiceEntry{
			registration("cache", "cache-1", "10.0.0.1", 6379, meta("lb-protocol", "tcp", "lb-port", "6379", "lb-tls", "terminate")),
			registration("db-a", "db-a-1", "10.0.0.2", 5432, meta("lb-port", "5432", "lb-host", "a.db.test,*.a.db.test", "lb-timeout-read", "5s")),
			registration("db-b", "db-b-1", "10.0.0.3", 5432, meta("lb-port", "5432", "lb-host", "b.db.test")),
			registration("db-c", "db-c-1", "10.0.0.4", 5432, meta("lb-port", "5432", "lb-host", "b.db.test")),
			registration("db-all", "db-all-1", "10.0.0.5", 5432, meta("lb-port", "5432")),
			registration("db-down", "db-down-1", "10.0.0.6", 5433, meta("lb-port", "5433", "lb-host", "down.db.test"), status("maintenance")),
			registration("web", "web-1", "10.0.0.7", 5432, meta("lb-protocol", "http", "lb-tls", "terminate")),
			registration("twice", "twice-1", "10.0.0.8", 5434, meta("lb-port", "5434", "lb-host", "x.test", "lb-tls", "terminate")),
		},
		settings: func(s *Settings) {
			s.Certificates = certificates.Set{Default: "/var/lib/lbctl/certificates/a.pem", Clients: []certificates.Clients{{}}}
		},
		nginx: []string{"1.22.1", "1.30.6"},
	},
	{
		name: "tcp-tls-without-certificate",
		registrations: []*api.ServiceEntry{
			registration("cache", "cache-1", "10.0.0.1", 6379, meta("lb-protocol", "tcp", "lb-port", "6379", "lb-tls", "terminate")),
		},
	},
	{
		name: "tcp-without-stream-module",
		registrations: []*api.ServiceEntry{
			registration("cache", "cache-1", "10.0.0.1", 6379, meta("lb-protocol", "tcp", "lb-port", "6379")),
		},
		settings: func(s *Settings) { s.StreamModule = nginx.NoStream },
	},
	{
		name: "by-dns",
		registrations: []*api.ServiceEntry{
			registration("hello_server", "hello-1", "10.0.0.1", 7777, tags("grpc_server"), meta("lb-max-conns", "100")),
			registration("hello_server", "hello-2", "10.0.0.2", 7777, tags("grpc_server"), meta("lb-max-conns", "100"), weights(3, 1)),
			registration("six", "six-1", "fd00::3", 7777, meta("lb-protocol", "grpc", "lb-path", "/six.Six")),
			registration("cache", "cache-1", "10.0.0.3", 6379, meta("lb-protocol", "tcp", "lb-port", "6379")),
			registration("down", "down-1", "10.0.0.4", 5432, meta("lb-port", "5432"), status("critical")),
			registration("web", "web-1", "10.0.0.5", 80, tags("http_server"), status("critical")),
			registration("limits", "limits-1", "10.0.0.6", 80, meta("lb-protocol", "http", "lb-path", "/limits", "lb-max-conns", "5")),
			registration("limits", "limits-2", "10.0.0.7", 80, meta("lb-protocol", "http", "lb-path", "/limits", "lb-max-conns", "6")),
			registration("asks-not", "asks-not-1", "10.0.0.8", 80, meta("lb-protocol", "https", "lb-path", "/not", "lb-endpoints", "reload")),
		},
		settings: byDNS,
	},
	{
		name: "root-and-modules",
		settings: func(s *Settings) {
			s.User = "www-data"
			s.StreamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"
			s.Listeners = PlainListeners(Listen{"[::]:5000", "10.0.0.9:5000"}, Listen{"127.0.0.1:80", "127.0.0.1:81"})
			s.RunDir = "/run/load balancer"
			s.OpenFiles = 1024
			s.WorkerCPUAffinity = "auto"
		},
	},
	{
		name: "nobody-healthy",
		registrations: []*api.ServiceEntry{
			registration("hello_server", "hello-1", "10.0.0.1", 7777, tags("grpc_server"), status("maintenance")),
			registration("hello_server", "hello-2", "10.0.0.2", 7777, tags("grpc_server"), status("maintenance")),
			registration("web", "web-1", "10.0.0.3", 80, meta("lb-protocol", "http", "lb-path", "/web"), status("maintenance")),
		},
	},
	{
		name: "bad-metadata",
		registrations: []*api.ServiceEntry{
			registration("good", "good-1", "10.0.0.1", 80, meta("lb-protocol", "http", "lb-path", "/good")),
			registration("good", "good-2", "10.0.0.2", 80, meta("lb-protocol", "http", "lb-path", "/good;}")),
			registration("worse", "worse-1", "10.0.0.3", 80, meta("lb-protocol", "gopher", "lb-host", "a b", "lb-path", "x", "lb-version", "{}", "lb-port", "no")),
			registration("address", "address-1", "10.0.0.4; }", 80, tags("grpc_server")),
			registration("named", "named-1", "db.example", 80, meta("lb-protocol", "http", "lb-path", "/named")),
			registration("named", "named-2", "nowhere.example", 80, meta("lb-protocol", "http", "lb-path", "/named")),
			registration("Web", "upper", "10.0.0.5", 80, meta("lb-protocol", "http", "lb-path", "/upper")),
			registration("web", "lower", "10.0.0.6", 80, meta("lb-protocol", "http", "lb-path", "/lower")),
			registration("twice", "twice-1", "10.0.0.7", 80, meta("lb-protocol", "http", "lb-path", "/good")),
			registration("not-ours", "not-ours-1", "anything goes", 0),
		},
	},
}

func TestGoldenConfigurations(t *testing.T) {
	for _, sc := range scenarios {
		versions := sc.nginx
		if versions == nil {
			versions = []string{"1.30.6"}
		}
		for _, version := range versions {
			name := sc.name + "-nginx-" + version
			t.Run(name, func(t *testing.T) {
				settings := testSettings(version)
				if sc.settings != nil {
					sc.settings(&settings)
				}
				c, err := offline(Options{Settings: settings}, parseAll(sc.registrations...), testNames())
				require.NoError(t, err)
				golden(t, filepath.Join("testdata", name+".golden"), text(c))
			})
		}
	}
}

// text returns a configuration for a golden file: the problems, and the files that differ
// between scenarios.
func text(c Configuration) string {
	var b strings.Builder
	for _, p := range c.Problems {
		fmt.Fprintf(&b, "problem: %s: %s\n", p.Subject, p.Message)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		fmt.Fprintf(&b, "==> %s <==\n%s", name, c.Files[name])
	}
	return b.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run go test with -update to make it")
	assert.Equal(t, string(want), got, "run go test with -update if %s is to change", path)
}

// streamModule finds nginx's stream module: at the place that nginx was built for, or
// beside the binary if it was unpacked elsewhere.
func streamModule(t *testing.T, binary nginxtest.Binary) string {
	t.Helper()
	out, err := exec.Command(binary.Path, "-V").CombinedOutput()
	require.NoError(t, err)
	if strings.Contains(string(out), "--with-stream ") {
		return ""
	}
	resolved, err := filepath.EvalSymlinks(binary.Path)
	require.NoError(t, err)
	dirs := []string{filepath.Join(filepath.Dir(resolved), "modules")}
	for flag := range strings.FieldsSeq(string(out)) {
		if dir, ok := strings.CutPrefix(flag, "--modules-path="); ok {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		module := filepath.Join(dir, "ngx_stream_module.so")
		if _, err := os.Stat(module); err == nil && nginxLoads(t, binary, module) {
			return module
		}
	}
	return nginx.NoStream
}

func nginxLoads(t *testing.T, binary nginxtest.Binary, module string) bool {
	dir := nginxtest.Dir(t)
	conf := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(conf, []byte("load_module "+module+";\nerror_log stderr;\npid nginx.pid;\nevents {}\n"), 0o644))
	return exec.Command(binary.Path, "-t", "-p", dir, "-c", conf).Run() == nil
}

// write writes a configuration so that nginx can start with it, and returns the path of the
// main file.
func write(t *testing.T, dir string, c Configuration) string {
	t.Helper()
	for name, content := range c.Files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o644))
	}
	generation := fmt.Sprintf("server { listen unix:%s/generation.sock; return 200 \"1\\n\"; }\n", dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "generation.conf"), []byte(generation), 0o644))
	return filepath.Join(dir, "nginx.conf")
}

// checkWithNginx makes nginx test a configuration that was rendered for its version.
func checkWithNginx(t *testing.T, binary nginxtest.Binary, services []endpoints.Service, change func(*Settings)) {
	t.Helper()
	dir := nginxtest.Dir(t)
	settings := testSettings(binary.Version)
	settings.StreamModule = streamModule(t, binary)
	if change != nil {
		module := settings.StreamModule
		change(&settings)
		settings.StreamModule = module
	}
	settings.RunDir = dir
	if settings.AccessLogDir != "" {
		settings.AccessLogDir = dir // nginx opens the log during the test
	}
	// nginx opens the ports of TCP services during the test.
	for n := range settings.Listeners {
		settings.Listeners[n].Listen = Listen{fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t))}
	}
	c, err := offline(Options{Settings: settings}, services, testNames())
	require.NoError(t, err)
	conf := write(t, dir, c)
	out, err := exec.Command(binary.Path, "-e", filepath.Join(dir, "error.log"), "-t", "-c", conf).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, text(c))
	assert.NotContains(t, string(out), "[warn]", "%s", text(c))
}

func TestNginxAcceptsEveryConfiguration(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for _, sc := range scenarios {
			t.Run(sc.name, func(t *testing.T) {
				if sc.name == "by-dns" && CanResolve(binary.Version) != nil {
					t.Skip(CanResolve(binary.Version))
				}
				checkWithNginx(t, binary, parseAll(sc.registrations...), sc.settings)
			})
		}
	})
}
