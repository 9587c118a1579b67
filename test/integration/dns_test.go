package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/render"
	"lbctl/protos"
)

// asking is an nginx with delivery by DNS.
func asking(t *testing.T) nginxtest.Binary {
	t.Helper()
	binary := newest(t)
	if err := render.CanResolve(binary.Version); err != nil {
		t.Skip(err)
	}
	return binary
}

const droppedBootstrap = "nginx has dropped bootstrap servers"

// settled waits until nginx has asked for its servers n times from the start, and
// has dropped its bootstrap servers. It returns nginx's generation.
func (s *system) settled(t *testing.T, n int) (generation int) {
	t.Helper()
	s.Eventually("nginx has dropped its bootstrap servers", func() error {
		status, err := s.Status()
		if err != nil {
			return err
		}
		generation = status.Nginx.Generation
		if status.State != controller.Serving || len(status.Endpoints.Unfetched) > 0 {
			return fmt.Errorf("%s: %s", status.State, status.Summary)
		}
		if found := strings.Count(s.Log(), droppedBootstrap); found < n {
			return fmt.Errorf("%d times, want %d", found, n)
		}
		return nil
	})
	return generation
}

// settledWithoutConsul is settled for a balancer that has only its snapshot.
func (s *system) settledWithoutConsul(t *testing.T, n int) {
	t.Helper()
	s.Eventually("nginx has dropped its bootstrap servers", func() error {
		status, err := s.Status()
		if err != nil {
			return err
		}
		if found := strings.Count(s.Log(), droppedBootstrap); found < n || len(status.Endpoints.Unfetched) > 0 {
			return fmt.Errorf("%d times, want %d: %s", found, n, status.Summary)
		}
		return nil
	})
}

// web is an HTTP server, registered as the default.
func (s *system) web(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-1", Name: "web", Address: "127.0.0.1", Tags: []string{"http_server"},
		Port: server.Listener.Addr().(*net.TCPAddr).Port,
	}))
	s.WaitServing("web", 1)
}

func TestScalingIsNoReload(t *testing.T) {
	s := start(t, asking(t))
	all := s.backends(t, 1, 3)
	generation, workers := s.settled(t, 1), s.Nginx().Workers()
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)
	streams := lbtest.StartStreams(t, s.GRPC, 6, pause)

	for n := 4; n <= 9; n++ { // add one instance, and remove another one
		b := lbtest.StartBackend(t, fmt.Sprintf("server-%d", n))
		b.Register(t, s.consul, hello)
		all = append(all, b)
		s.WaitServing(hello, len(all))
		on := streams.On()
		leaving := slices.IndexFunc(all, func(b *lbtest.Backend) bool { return on[b.Name] == 0 }) // its end would break its streams, with any balancer
		all[leaving].Leave(t, s.consul, hello, 1500*time.Millisecond)
		all = slices.Delete(all, leaving, leaving+1)
	}
	for _, b := range all {
		s.Eventually(b.Name+" answers", func() error {
			if load.First(b.Name).IsZero() {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	}
	s.WaitServing(hello, len(all))
	lostNothing(t, load.Stop())
	assert.Empty(t, streams.Stop())
	assert.Equal(t, generation, s.settled(t, 1), "scaling is no new generation")
	assert.Equal(t, workers, s.Nginx().Workers(), "nginx has not reloaded")
}

func TestNginxStartsWithItsServersWithoutLbctl(t *testing.T) {
	s := start(t, asking(t))
	s.backends(t, 1, 2)
	s.settled(t, 1)
	s.StopLbctl()
	s.Nginx().KillMaster()
	s.StartNginx()
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())

	s.StartLbctl()
	s.WaitServing(hello, 2)
	s.settled(t, 2)
	more := lbtest.StartLoad(t, s.GRPC, 2, pause)
	s.backends(t, 3, 3)
	more.WaitMore(t, 50)
	lostNothing(t, more.Stop())
}

func TestNginxKeepsItsServersOverAReloadWithoutLbctl(t *testing.T) {
	s := start(t, asking(t))
	s.backends(t, 1, 2)
	s.settled(t, 1)
	load := lbtest.StartLoad(t, s.GRPC, 2, pause)
	s.KillLbctl()
	workers := s.Nginx().Workers()
	s.Nginx().Reload()
	s.Eventually("nginx has other workers", func() error {
		if now := s.Nginx().Workers(); slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(workers, pid) }) {
			return fmt.Errorf("still %v, now %v", workers, now)
		}
		return nil
	})
	load.WaitMore(t, 200)
	lostNothing(t, load.Stop())
}

func TestErrorsWithoutAHealthyInstance(t *testing.T) {
	s := start(t, asking(t))
	all := s.backends(t, 1, 2)
	s.web(t)
	s.settled(t, 1)
	for _, b := range all {
		require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-"+b.Name, "test"))
	}
	require.NoError(t, s.consul.Agent().EnableServiceMaintenance("web-1", "test"))
	s.WaitServing(hello, 0)
	s.WaitServing("web", 0)

	maintained, err := s.Status()
	require.NoError(t, err)
	assert.Contains(t, maintained.Summary, "no instance gets traffic, because ")
	out, err := s.Lbctl("services", "web")
	require.NoError(t, err)
	assert.Contains(t, out, "no: in maintenance: test")
	out, err = s.Lbctl("status")
	require.NoError(t, err, "the exit code is 0")
	assert.Contains(t, out, "service web: no instance gets traffic, because its only instance is in maintenance")

	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), lbtest.Patience)
	defer cancel()
	_, err = protos.NewPingClient(conn).SayHello(ctx, &protos.PingMessage{})
	assert.Equal(t, codes.Unavailable, status.Code(err))
	assert.Contains(t, status.Convert(err).Message(), "no instance of hello_server is in rotation")
	resp, err := http.Get("http://" + s.HTTP + "/")
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)

	require.NoError(t, s.consul.Agent().DisableServiceMaintenance("web-1"))
	s.Eventually("it is served again", func() error {
		resp, err := http.Get("http://" + s.HTTP + "/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
}
