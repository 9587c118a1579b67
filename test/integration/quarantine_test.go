package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/admin"
	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/history"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// crowd is the number of services beside the one with the problem.
const crowd = 49

// startInACrowd starts a balancer on one Consul server, with an instance of hello under
// load and many other services.
func startInACrowd(t *testing.T, args ...string) (*system, *lbtest.Backend, *lbtest.Load) {
	t.Helper()
	consul := consultest.Start(t)
	s := &system{
		Balancer: lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: newest(t), Args: args}),
		agent:    consul,
		consul:   consul.Client(),
	}
	for n := range crowd {
		s.other(t, n, "1.0")
	}
	hello := s.backends(t, 1, 1)
	s.WaitServing(other(crowd-1), 1)
	return s, hello[0], lbtest.StartLoad(t, s.GRPC, 2, pause)
}

func other(n int) string { return fmt.Sprintf("other-%d", n) }

// other registers one of the other services, or changes its version.
func (s *system) other(t *testing.T, n int, version string) {
	t.Helper()
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: other(n), Name: other(n), Address: "127.0.0.1", Port: 7000,
		Meta: map[string]string{"lb-protocol": "grpc", "lb-path": "/other." + strconv.Itoa(n), "lb-version": version},
	}))
}

// version registers an instance of hello again, with another version.
func (s *system) version(t *testing.T, b *lbtest.Backend, version string) {
	t.Helper()
	r := b.Registration(hello)
	r.Meta = map[string]string{"lb-version": version}
	require.NoError(t, s.consul.Agent().ServiceRegister(r))
}

// becomes waits until a service has this state and a reason with all these words, and the
// balancer's own state is serving.
func (s *system) becomes(service string, state endpoints.State, words ...string) {
	s.Eventually(fmt.Sprintf("%s is %s", service, state), func() error {
		services, err := s.Services()
		if err != nil {
			return err
		}
		for _, found := range services {
			if found.Name != service {
				continue
			}
			if err := is(found, state, words); err != nil {
				return err
			}
			status, err := s.Status()
			if err == nil && status.State != controller.Serving {
				err = errors.New(status.Summary)
			}
			if err == nil && state == endpoints.Quarantined && !strings.Contains(status.Summary, service) {
				err = fmt.Errorf("it is not named: %s", status.Summary)
			}
			return err
		}
		return errors.New("there is no such service")
	})
}

func is(service admin.Service, state endpoints.State, words []string) error {
	for _, word := range words {
		if !strings.Contains(service.Reason, word) {
			return fmt.Errorf("reason %q, want %q in it", service.Reason, word)
		}
	}
	if service.State != state {
		return fmt.Errorf("it is %s: %s", service.State, service.Reason)
	}
	return nil
}

// wrote waits until a file of the current generation contains a line.
func (s *system) wrote(file, line string) {
	s.Eventually(fmt.Sprintf("%q is in %s", line, file), func() error {
		text, err := os.ReadFile(filepath.Join(s.StateDir, "current", file))
		if err == nil && !strings.Contains(string(text), line) {
			err = fmt.Errorf("it has:\n%s", text)
		}
		return err
	})
}

// refusals counts the refused configurations in the history.
func (s *system) refusals(t *testing.T, kind history.Kind, service string) int {
	t.Helper()
	out, err := s.Lbctl("history", "--limit", "1000", "-o", "json")
	require.NoError(t, err)
	return strings.Count(out, fmt.Sprintf("%q: %q", "kind", kind)) + 1000*strings.Count(out, "service "+service+": ")
}

func TestAPortInUseQuarantinesItsServiceOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	s, _, load := startInACrowd(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port

	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "echo\n")
			c.Close()
		}
	}()
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "cache", Address: "127.0.0.1", Port: echo.Addr().(*net.TCPAddr).Port,
		Meta: map[string]string{"lb-protocol": "tcp", "lb-port": strconv.Itoa(port)},
	}))
	s.becomes("cache", endpoints.Quarantined, "not served", fmt.Sprintf("bind() to 127.0.0.1:%d failed", port), "in use")
	s.backends(t, 2, 2)
	s.other(t, crowd, "1.0")
	s.WaitServing(other(crowd), 1)
	assert.Equal(t, 1001, s.refusals(t, history.RolledBack, "cache"), "one refusal, which names the service")

	require.NoError(t, taken.Close())
	s.becomes("cache", endpoints.Fresh)
	s.Eventually("the cache is served", func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "echo\n" {
			return fmt.Errorf("got %q, %v", got, err)
		}
		return nil
	})
	lostNothing(t, load.Stop())
}

// TestTakenPortsAreQuarantinedTogether has six services whose ports others have, and one whose port
// nginx already listens at: all six go into quarantine with the first reload that fails, and no other.
func TestTakenPortsAreQuarantinedTogether(t *testing.T) {
	t.Parallel() // it mostly waits
	s, _, load := startInACrowd(t)
	register := func(name string, port int, host string) {
		meta := map[string]string{"lb-protocol": "tcp", "lb-port": strconv.Itoa(port)}
		if host != "" {
			meta["lb-host"] = host
		}
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, Address: "127.0.0.1", Port: 7000, Meta: meta}))
	}
	shared := nginxtest.FreePort(t)
	register("shared-a", shared, "a.test")
	s.becomes("shared-a", endpoints.Fresh)

	const services = 6
	var taken []net.Listener
	for range services {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		taken = append(taken, listener)
	}
	cache := func(n int) string { return fmt.Sprintf("cache-%d", n) }
	for n, listener := range taken {
		register(cache(n), listener.Addr().(*net.TCPAddr).Port, "")
	}
	register("shared-b", shared, "b.test")
	quarantined := func(from int) func() error { // status names only the first of several
		return func() error {
			found, err := s.Services()
			if err != nil {
				return err
			}
			left := services - from
			for _, service := range found {
				for n, listener := range taken[from:] {
					if service.Name == cache(from+n) {
						left--
						err = errors.Join(err, is(service, endpoints.Quarantined, []string{"not served", fmt.Sprintf("bind() to %s failed", listener.Addr()), "in use"}))
					}
				}
			}
			if left > 0 {
				return fmt.Errorf("%d services are not there yet", left)
			}
			return err
		}
	}
	s.Eventually("all services with taken ports are quarantined", quarantined(0))
	s.becomes("shared-b", endpoints.Fresh)
	s.other(t, crowd, "1.0")
	s.WaitServing(other(crowd), 1)
	// Consul may tell of the first services before the last is registered.
	assert.LessOrEqual(t, s.refusals(t, history.RolledBack, "nobody"), 2)

	require.NoError(t, taken[0].Close())
	s.becomes(cache(0), endpoints.Fresh)
	require.NoError(t, quarantined(1)())
	lostNothing(t, load.Stop())
}

func TestAValueThatATemplateRejectsQuarantinesItsServiceOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	const file = "http.d/own.conf"
	tests := []struct {
		name     string
		template string
		bad      string
		reason   string
	}{
		{
			"nginx refuses it, and names the place",
			"{{range catalog.Services}}{{$name := .Name}}{{range .Rotation}}\nupstream own-{{$name}} { server 127.0.0.1:1 weight={{or .Version \"1\" | replaceAll \".\" \"0\"}}; } #\n{{end}}{{end}}",
			"bad", "nginx -t: invalid parameter \"weight=bad\" in " + file,
		},
		{
			"nginx refuses it, and names a place that says nothing",
			"{{range catalog.Services}}{{$name := .Name}}{{range .Rotation}}upstream own-{{$name}} { server 127.0.0.1:1 weight={{or .Version \"1\" | replaceAll \".\" \"0\"}}; } {{end}}{{end}} #\n",
			"bad", "nginx -t: invalid parameter \"weight=bad\" in " + file,
		},
		{
			"the template fails",
			"{{range catalog.Services}}{{$name := .Name}}{{range .Rotation}}{{if .Version}}\nupstream own-{{$name}} { server 127.0.0.1:1 weight={{index (split \".\" .Version) 0}}0{{index (split \".\" .Version) 1}}; } #\n{{end}}{{end}}{{end}}",
			"2", "template " + file + ".ctmpl: line 2:",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			templates := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(templates, "http.d"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(templates, file+".ctmpl"), []byte(tt.template), 0o644))
			s, b, load := startInACrowd(t, "--templates", templates)
			block := func(service, weight string) string {
				return fmt.Sprintf("upstream own-%s { server 127.0.0.1:1 weight=%s; }", service, weight)
			}
			s.version(t, b, "2.0")
			s.wrote(file, block(hello, "200"))

			// Other services change at the same moment, and are not the cause.
			s.other(t, 0, "3.0")
			s.version(t, b, tt.bad)
			s.other(t, 1, "3.0")
			s.becomes(hello, endpoints.Quarantined, "its last good state is kept", tt.reason)
			s.wrote(file, block(other(0), "300"))
			s.wrote(file, block(other(1), "300"))
			s.wrote(file, block(hello, "200"))
			for n := range crowd {
				s.other(t, n, "4.0")
			}
			for n := range crowd {
				s.wrote(file, block(other(n), "400"))
			}
			if strings.HasPrefix(tt.reason, "nginx") {
				assert.Equal(t, 1001, s.refusals(t, history.Rejected, hello), "one refusal, which names the service")
			}

			// lbctl knows the last good block also after a restart.
			s.StopLbctl()
			s.StartLbctl()
			s.becomes(hello, endpoints.Quarantined, tt.reason)
			s.other(t, 2, "5.0")
			s.wrote(file, block(other(2), "500"))
			s.wrote(file, block(hello, "200"))

			s.version(t, b, "6.0")
			s.wrote(file, block(hello, "600"))
			s.becomes(hello, endpoints.Fresh)
			lostNothing(t, load.Stop())
		})
	}
}

func TestAMistakeInATemplateQuarantinesNoService(t *testing.T) {
	t.Parallel() // it mostly waits
	templates := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(templates, "http.d"), 0o755))
	write := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(templates, "http.d", "own.conf.ctmpl"), []byte(text), 0o644))
	}
	write("# nothing\n")
	s, b, load := startInACrowd(t, "--templates", templates)
	write("{{range catalog.Services}}upstream own-{{.Name}} { sever 127.0.0.1:1; }\n{{end}}")
	s.version(t, b, "2.0")
	s.Eventually("status names the directive", func() error { return problem(s.Balancer, `unknown directive "sever"`) })
	services, err := s.Services()
	require.NoError(t, err)
	for _, service := range services {
		assert.NotEqual(t, endpoints.Quarantined, service.State, service.Name)
	}
	write("{{range catalog.Services}}upstream own-{{.Name}} { server 127.0.0.1:1; }\n{{end}}")
	s.becomes(hello, endpoints.Fresh)
	s.wrote("http.d/own.conf", "upstream own-"+hello)

	// The service leaves the quarantine when the template accepts its data.
	write("{{range catalog.Services}}{{$name := .Name}}{{range .Instances}}map $host $own_{{$name | replaceAll \"-\" \"_\"}} { {{or .Version \"none\"}} 1; }\n{{end}}{{end}}")
	s.wrote("http.d/own.conf", "{ 2.0 1; }")
	s.version(t, b, "include") // in a map, nginx includes a file
	s.becomes(hello, endpoints.Quarantined, "open()")
	write("# nothing\n")
	s.becomes(hello, endpoints.Fresh)
	lostNothing(t, load.Stop())
}
