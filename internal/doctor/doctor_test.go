package doctor

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consulclient"
	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/daemon"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
)

// fired has the checks that a test has seen fail or warn.
var fired = struct {
	sync.Mutex
	names map[string]bool
}{names: map[string]bool{}}

// TestMain fails if a check has no test in which it fires, unless only some tests ran.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if code == 0 && all && !testing.Short() {
		for _, check := range Checks {
			if !fired.names[check.Name] {
				fmt.Printf("no test in which the check %s fires\n", check.Name)
				code = 1
			}
		}
	}
	lbtest.RemoveBinary()
	os.Exit(code)
}

// findings returns those of one check.
func findings(report Report, check string) (found []Finding) {
	for _, f := range report.Findings {
		if f.Check == check {
			found = append(found, f)
		}
	}
	return found
}

// fires checks that a check has found something with these words, and says how to mend it.
func fires(t *testing.T, report Report, check string, state State, words ...string) {
	t.Helper()
	for _, f := range findings(report, check) {
		if f.State != state || slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(f.Found+" "+f.Wanted, word) }) {
			continue
		}
		assert.NotEmpty(t, f.Wanted, "%+v", f)
		assert.NotEmpty(t, f.Mend, "%+v", f)
		assert.True(t, report.State == Failed || report.State == state, report.State)
		fired.Lock()
		fired.names[check] = true
		fired.Unlock()
		return
	}
	assert.Fail(t, "no such finding", "want %s %s with %q, got %+v", check, state, words, findings(report, check))
}

// fine checks that a check has found nothing wrong.
func fine(t *testing.T, report Report, check string) {
	t.Helper()
	found := findings(report, check)
	require.NotEmpty(t, found, check)
	for _, f := range found {
		assert.Equal(t, OK, f.State, "%+v", f)
		assert.Empty(t, f.Mend)
	}
}

// notExamined checks that a check could not be made.
func notExamined(t *testing.T, report Report, check string, words string) {
	t.Helper()
	for _, f := range findings(report, check) {
		assert.Equal(t, Skipped, f.State, "%+v", f)
		assert.Contains(t, f.Found, words)
	}
}

// local is the subject of a machine without a daemon, on ports that are free.
func local(t *testing.T, consul *api.Config) Subject {
	t.Helper()
	s := Subject{
		Version: "1.2.3",
		Config: daemon.Config{
			StateDir: nginxtest.Dir(t),
			Nginx: daemon.NginxConfig{
				Binary:     newest(t).Path,
				GRPCListen: render.Listen{freeAddress(t)},
				HTTPListen: render.Listen{freeAddress(t)},
				DNSListen:  freeAddress(t),
				Endpoints:  daemon.EndpointsAuto,
			},
		},
	}
	s.Daemon.Err = fmt.Errorf("no daemon answered")
	if consul == nil {
		consul = &api.Config{Address: "127.0.0.1:1"}
	}
	s.Consul, s.ConsulErr = consulclient.New(consul)
	return s
}

func freeAddress(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", nginxtest.FreePort(t)) }

// newest is nginx 1.30, or whatever there is.
func newest(t *testing.T) nginxtest.Binary {
	all := nginxtest.Binaries(t)
	return all[len(all)-1]
}

// as returns how to reach a Consul with a token.
func as(consul *consultest.Server, token string) *api.Config {
	config := consul.Config()
	config.Token = token
	return config
}

// balancer is a running lbctl with its Consul and its nginx.
type balancer struct {
	*lbtest.Balancer
	consul *consultest.Server
	nginx  nginxtest.Binary
}

func startBalancer(t *testing.T, args ...string) *balancer {
	t.Helper()
	return startIn(t, "", args...)
}

// startIn starts a balancer with a state directory, and returns when nginx serves.
func startIn(t *testing.T, stateDir string, args ...string) *balancer {
	t.Helper()
	b := &balancer{consul: consultest.Start(t), nginx: newest(t)}
	b.Balancer = lbtest.Start(t, lbtest.Options{Consul: b.consul.Addr, Nginx: b.nginx, StateDir: stateDir, Args: args})
	b.Eventually("nginx serves", func() error {
		status, err := b.Status()
		if err == nil && status.State != controller.Serving {
			err = fmt.Errorf("%s", status.Summary)
		}
		return err
	})
	return b
}

// subject is what 'lbctl doctor' would find out about the balancer.
func (b *balancer) subject(t *testing.T) Subject {
	t.Helper()
	s := local(t, b.consul.Config())
	s.Config.StateDir = b.StateDir
	s.Config.Nginx.Binary = b.nginx.Path
	s.Config.Nginx.GRPCListen, s.Config.Nginx.HTTPListen = render.Listen{b.GRPC}, render.Listen{b.HTTP}
	s.Config.Nginx.DNSListen = b.DNS()
	s.Config.Nginx.AccessLogDir = b.AccessLogDir()
	s.Config.Probe.InRotation = true
	s.Daemon = Daemon{PID: b.PID()}
	status, err := b.Status()
	if err != nil {
		s.Daemon.Err = err
		return s
	}
	s.Daemon.Status = &status
	s.Daemon.Services, err = b.Services()
	require.NoError(t, err)
	s.Version = status.Version
	return s
}

// TestEverythingFine examines a balancer without a fault.
func TestEverythingFine(t *testing.T) {
	b := startBalancer(t)
	backend := lbtest.StartBackend(t, "one")
	backend.Register(t, b.consul.Client(), "hello_server")
	b.WaitServing("hello_server", 1)
	report := Examine(t.Context(), b.subject(t))
	for _, f := range report.Findings {
		assert.NotContains(t, []State{Failed, Skipped}, f.State, "%+v", f)
		// The tests' --open-files, and an older nginx if there is no other.
		if f.Check != "nginx-limits" && f.Check != "nginx-version" {
			assert.Equal(t, OK, f.State, "%+v", f)
		}
	}
	assert.GreaterOrEqual(t, len(report.Findings), len(Checks))
	assert.Zero(t, report.Count(Failed))
}

// TestManual compares docs/doctor.md with the table of checks.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	require.NoError(t, err)
	rows := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (.*) \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1)
	var documented, want []string
	for _, row := range rows {
		documented = append(documented, strings.Join(row[1:], " | "))
	}
	for _, check := range Checks {
		want = append(want, strings.Join([]string{check.Name, check.About, check.Mend}, " | "))
	}
	assert.Equal(t, want, documented)
}
