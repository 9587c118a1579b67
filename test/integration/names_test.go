package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// TestNamesOfAnyLengthAndCase registers services whose names are as long as Consul
// allows, differ only in case, or are crafted to collide with another service's upstream.
// Each one's own instance must serve it, without any problem.
func TestNamesOfAnyLengthAndCase(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, nginx nginxtest.Binary) {
		s := alone(t, nginx)
		names := []string{
			"innocent", "Innocent", "innocent-2", "http-innocent",
			strings.Repeat("a", 245), strings.Repeat("a", 254) + "b", strings.Repeat("a", 254) + "B", strings.Repeat("a", 255),
		}
		for n, name := range names {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
			t.Cleanup(server.Close)
			require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
				ID: fmt.Sprint("instance-", n), Name: name, Address: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port,
				Meta: map[string]string{"lb-protocol": "http", "lb-path": fmt.Sprintf("/%d", n)},
			}))
		}
		for n, name := range names {
			s.Eventually(fmt.Sprintf("service %d answers", n), func() error { return s.answers(fmt.Sprintf("/%d", n), name) })
		}
		status, err := s.Status()
		require.NoError(t, err)
		assert.Empty(t, status.Problems)
	})
}

// answers reports whether the answer for the path is the text.
func (s *system) answers(path, want string) error {
	response, err := http.Get("http://" + s.HTTP + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && string(text) != want {
		err = fmt.Errorf("%s %q, want %q", response.Status, text, want)
	}
	return err
}

// TestInstancesWithoutAnAddressAreNotInRotation registers instances whose host names don't
// resolve, or resolve to the balancer itself. services and status must not count them.
func TestInstancesWithoutAnAddressAreNotInRotation(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, newest(t))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "web") }))
	t.Cleanup(server.Close)
	register := func(service, address string, port int) {
		t.Helper()
		require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: service + "-" + address, Name: service, Address: address, Port: port,
			Meta: map[string]string{"lb-protocol": "http", "lb-path": "/" + service},
		}))
	}
	_, port, err := net.SplitHostPort(s.HTTP)
	require.NoError(t, err)
	own, err := strconv.Atoi(port)
	require.NoError(t, err)
	register("itself", "localhost", own)
	register("nowhere", "nobody.invalid", 80)
	register("web", "localhost", server.Listener.Addr().(*net.TCPAddr).Port)
	s.WaitServing("web", 1)
	s.Eventually("web answers", func() error { return s.answers("/web", "web") })

	services, err := s.Services()
	require.NoError(t, err)
	reasons := map[string]string{}
	for _, service := range services {
		require.Len(t, service.Instances, 1)
		assert.Equal(t, service.Name == "web", service.Instances[0].InRotation, service.Name)
		assert.Equal(t, service.Name == "web", service.InRotation == 1, service.Name)
		reasons[service.Name] = service.Instances[0].Reason
	}
	assert.Equal(t, `its address "nobody.invalid" can't be resolved`, reasons["nowhere"])
	assert.Regexp(t, `^its address "localhost" resolves to \S+, and the balancer itself listens at `, reasons["itself"])
	assert.Empty(t, reasons["web"])
	status, err := s.Status()
	require.NoError(t, err)
	assert.Equal(t, 1, status.Instances)
	assert.Equal(t, 3, status.Services)

	register("nowhere", "127.0.0.1", server.Listener.Addr().(*net.TCPAddr).Port)
	s.WaitServing("nowhere", 1)
	assert.NoError(t, s.answers("/nowhere", "web"))
}
