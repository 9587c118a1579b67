package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/endpoints"
	"lbctl/internal/lbtest"
)

// TestPanicSendsTrafficToCriticalInstances makes Consul's checks fail for instances that answer,
// as wrong checks do after a deploy.
func TestPanicSendsTrafficToCriticalInstances(t *testing.T) {
	t.Parallel() // it mostly waits
	var wrong atomic.Bool
	check := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if wrong.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer check.Close()
	s := alone(t, newest(t))
	for n := 1; n <= 3; n++ {
		r := lbtest.StartBackend(t, fmt.Sprintf("server-%d", n)).Registration(hello)
		r.Check = &api.AgentServiceCheck{HTTP: check.URL, Interval: "200ms", Timeout: "5s", Status: api.HealthPassing}
		require.NoError(t, s.consul.Agent().ServiceRegister(r))
	}
	s.WaitServing(hello, 3)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)

	wrong.Store(true)
	s.Eventually("Consul has all of them critical", func() error {
		passing, _, err := s.consul.Health().Service(hello, "", true, &api.QueryOptions{})
		if err == nil && len(passing) > 0 {
			err = fmt.Errorf("%d pass", len(passing))
		}
		return err
	})
	s.becomes(hello, endpoints.Panic)
	s.WaitServing(hello, 3)
	out, err := s.Lbctl("services")
	require.NoError(t, err)
	assert.Regexp(t, hello+` .* panic +3/3`, out)
	during := lbtest.StartLoad(t, s.GRPC, 2, pause)
	during.WaitMore(t, 200)
	result := during.Stop()
	lostNothing(t, result)
	assert.Len(t, result.Names, 3, "all are tried: %s", strings.Join(result.Names, " "))

	wrong.Store(false)
	s.becomes(hello, endpoints.Fresh)
	s.WaitServing(hello, 3)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}
