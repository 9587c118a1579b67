package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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
