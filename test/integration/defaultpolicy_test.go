package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
	"lbctl/internal/lbtest"
)

// few is the number of services beside hello in tests of the policy for all services.
const few = 4

const ownConf = "http.d/own.conf"

// ownTemplates makes a directory with a template that nginx refuses, or that fails, for the value
// 13s of timeout.read, which is as good as any other to lbctl. The version "bad" of an instance
// makes nginx refuse its service alone.
func ownTemplates(t *testing.T, refused string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "http.d"), 0o755))
	text := `{{range catalog.Services}}{{$name := .Name}}{{$read := .Policy.General.Timeout.Read}}{{range .Rotation}}
upstream own-{{$name}} { {{if eq (print $read) "13s"}}` + refused + `{{else}}server{{end}} 127.0.0.1:1 weight={{or .Version "1" | replaceAll "." "0"}}; }
{{end}}{{end}}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, ownConf+".ctmpl"), []byte(text), 0o644))
	return dir
}

// ownBlock is what the template writes for a service with a version.
func ownBlock(service, version string) string {
	return fmt.Sprintf("upstream own-%s { server 127.0.0.1:1 weight=%s; }", service, strings.ReplaceAll(version, ".", "0"))
}

// quarantined returns the services in quarantine.
func (s *system) quarantined(t *testing.T) (names []string) {
	t.Helper()
	services, err := s.Services()
	require.NoError(t, err)
	for _, service := range services {
		if service.State == endpoints.Quarantined {
			names = append(names, service.Name)
		}
	}
	return names
}

// blamed counts the events of the history that blame somebody.
func (s *system) blamed(t *testing.T, who string) int {
	t.Helper()
	out, err := s.Lbctl("history", "--limit", "1000", "-o", "json")
	require.NoError(t, err)
	return strings.Count(out, `"reason": "`+who)
}

func TestABadPolicyForAllServicesCostsNoServiceItsChange(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, tt := range []struct {
		name, refused, why string
		events             int // in the history; a template that fails is none
	}{
		{"nginx refuses it", "sever", `unknown directive "sever" in ` + ownConf, 1},
		{"a template fails", `{{index "" 1}}`, "template " + ownConf + ".ctmpl: line 2:", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := alone(t, newest(t), "--templates", ownTemplates(t, tt.refused))
			for n := range few {
				s.other(t, n, "1.0")
			}
			b := s.backends(t, 1, 1)[0]
			load := lbtest.StartLoad(t, s.GRPC, 2, pause)
			s.servesPolicies(s.policy(t, "default", `{"timeout.read": "66s"}`))
			s.wrote("grpc.conf", "grpc_read_timeout 66s;")

			// Services change at the same moment, and keep their changes.
			s.other(t, 0, "3.0")
			s.policy(t, "default", `{"timeout.read": "13s"}`)
			index := s.policy(t, "service/"+other(1), `{"timeout.send": "201s"}`)
			refused := []string{"lb/default: it is refused: ", tt.why, "; its last good version is kept"}
			s.problem(`policy "lb/default"`, refused...)
			s.servesPolicies(index)
			s.wrote(ownConf, ownBlock(other(0), "3.0"))
			s.wrote("grpc.conf", "grpc_send_timeout 201s;")
			s.wrote("grpc.conf", "grpc_read_timeout 66s;")
			assert.Empty(t, s.quarantined(t))
			assert.Equal(t, tt.events, s.blamed(t, "policy lb/default: "))
			for _, command := range []string{"status", "policy list", "doctor"} {
				out, _ := s.Lbctl(strings.Fields(command)...) // status and doctor tell of problems by their exit code too
				assert.Contains(t, strings.Join(strings.Fields(out), " "), "it is refused", command)
			}

			// The next lbctl knows it without asking nginx again.
			s.StopLbctl()
			s.StartLbctl()
			s.problem(`policy "lb/default"`, refused...)
			s.other(t, 0, "4.0")
			s.wrote(ownConf, ownBlock(other(0), "4.0"))
			s.wrote("grpc.conf", "grpc_read_timeout 66s;")
			assert.Equal(t, tt.events, s.blamed(t, "policy lb/default: "))
			assert.Zero(t, s.blamed(t, "service"))

			// A newer version is tried, and a service has a fault of its own at the same moment.
			s.version(t, b, "bad")
			index = s.policy(t, "default", `{"timeout.read": "13s", "timeout.send": "202s"}`)
			s.other(t, 2, "5.0")
			s.becomes(hello, endpoints.Quarantined, "its last good state is kept", "weight=bad")
			s.problem(`policy "lb/default"`, refused...)
			s.servesPolicies(index)
			s.wrote(ownConf, ownBlock(other(2), "5.0"))
			s.wrote("grpc.conf", "grpc_read_timeout 66s;")
			assert.Equal(t, []string{hello}, s.quarantined(t))
			assert.Equal(t, 2*tt.events, s.blamed(t, "policy lb/default: "))

			// The mended document is served, and by services in quarantine as soon as they are mended.
			s.servesPolicies(s.policy(t, "default", `{"timeout.read": "61s"}`))
			s.wrote("grpc.conf", "grpc_read_timeout 61s;")
			assert.Equal(t, []string{hello}, s.quarantined(t))
			s.version(t, b, "6.0")
			s.wrote(ownConf, ownBlock(hello, "6.0"))
			s.withoutProblems()
			lostNothing(t, load.Stop())
		})
	}
}

// With a good policy for all services, a fault of a service is its own, also if all services change.
func TestAGoodPolicyForAllServicesIsNotBlamed(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t), "--templates", ownTemplates(t, "sever"))
	for n := range few {
		s.other(t, n, "1.0")
	}
	s.WaitServing(other(few-1), 1)
	s.other(t, 0, "bad")
	s.policy(t, "default", `{"timeout.read": "62s"}`)
	s.becomes(other(0), endpoints.Quarantined, "weight=bad")
	s.wrote("grpc.conf", "grpc_read_timeout 62s;")
	assert.Equal(t, []string{other(0)}, s.quarantined(t))
	s.other(t, 0, "2.0")
	s.becomes(other(0), endpoints.Fresh)

	// A policy of a service that is refused is the service's fault.
	s.policy(t, "service/"+other(1), `{"timeout.read": "13s"}`)
	s.becomes(other(1), endpoints.Quarantined, "sever")
	assert.Equal(t, []string{other(1)}, s.quarantined(t))
	assert.Zero(t, s.blamed(t, "policy"))
}

func TestTheFirstStartWithABadPolicyForAllServices(t *testing.T) {
	t.Parallel() // it mostly waits
	consul := consultest.Start(t)
	s := &system{agent: consul, consul: consul.Client()}
	for n := range few {
		s.other(t, n, "1.0")
	}
	s.other(t, 0, "bad")
	s.policy(t, "default", `{"timeout.read": "13s"}`)
	s.Balancer = lbtest.Start(t, lbtest.Options{Consul: consul.Addr, Nginx: newest(t), Args: []string{"--templates", ownTemplates(t, "sever")}})
	left := []string{`unknown directive "sever"`, "it is left out, because there is no earlier good version"}
	s.problem(`policy "lb/default"`, left...)
	s.becomes(other(0), endpoints.Quarantined, "not served", "weight=bad")
	s.wrote(ownConf, ownBlock(other(1), "1.0"))
	assert.Equal(t, []string{other(0)}, s.quarantined(t))
	s.StopLbctl()
	s.StartLbctl()
	s.problem(`policy "lb/default"`, left...)

	s.other(t, 0, "2.0")
	s.servesPolicies(s.policy(t, "default", `{"timeout.read": "63s"}`))
	s.wrote("grpc.conf", "grpc_read_timeout 63s;")
	s.withoutProblems()
}

// lbctl doesn't know whether nginx can load a file. The only service that the policy is for keeps
// its own changes all the same.
func TestABadFileInThePolicyForAllServices(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t))
	register := func(path string) {
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: "secure", Name: "secure", Address: "127.0.0.1", Port: 7001,
			Meta: map[string]string{"lb-protocol": "https", "lb-path": path, "lb-check": "none"},
		}))
	}
	register("/one")
	s.WaitServing("secure", 1)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	register("/two")
	s.policy(t, "default", fmt.Sprintf(`{"tls.server-name": "all.internal", "tls.verify": true, "tls.ca": %q}`, ca))
	s.problem(`policy "lb/default"`, ca, "it is left out, because there is no earlier good version")
	s.wrote("http.conf", "location /two")
	assert.Empty(t, s.quarantined(t))

	// The file comes.
	authority, err := os.ReadFile(consultest.NewAuthority(t).CAFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(ca, authority, 0o644))
	s.wrote("http.conf", "proxy_ssl_name all.internal;")
	s.withoutProblems()
}
