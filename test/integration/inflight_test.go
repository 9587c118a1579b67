package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

const slow = "slow"

// patience is a service whose answers never end, and its clients.
type patience struct {
	s       *system
	t       *testing.T
	calls   []context.CancelFunc
	clients sync.WaitGroup
}

func patient(t *testing.T, s *system) *patience {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	p := &patience{s: s, t: t}
	t.Cleanup(func() {
		p.leave(len(p.calls))
		server.Close()
	})
	require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: slow, Tags: []string{"http_server"}, Address: "127.0.0.1",
		Port: int(netip.MustParseAddrPort(server.Listener.Addr().String()).Port()),
	}))
	s.WaitServing(slow, 1)
	return p
}

// call begins n requests.
func (p *patience) call(n int) {
	for range n {
		ctx, cancel := context.WithCancel(context.Background())
		p.calls = append(p.calls, cancel)
		p.clients.Go(func() {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.s.HTTP+"/", nil)
			if assert.NoError(p.t, err) {
				if answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request); err == nil {
					answer.Body.Close()
				}
			}
		})
	}
}

// leave ends the oldest n requests.
func (p *patience) leave(n int) {
	for _, cancel := range p.calls[:n] {
		cancel()
	}
	p.calls = p.calls[n:]
	if len(p.calls) == 0 {
		p.clients.Wait()
	}
}

// are waits until lbctl says that so many requests are in flight.
func (p *patience) are(n float64) {
	p.t.Helper()
	p.s.WaitMetric(n, "lbctl_requests_in_flight", "service", slow)
}

// ended waits until so many requests have ended.
func (p *patience) ended(n float64) {
	p.t.Helper()
	p.s.WaitMetric(n, "lbctl_requests_total", "service", slow)
}

// TestRequestsInFlightOverFiles stops lbctl for so long that it has to read more at once than it
// does, and replaces the log meanwhile.
func TestRequestsInFlightOverFiles(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := alone(t, binary, "--requests-in-flight", "on", "--access-log-size", "6m")
		s.backends(t, 1, 2)
		for range 3 {
			load := lbtest.StartLoad(t, s.GRPC, 16, 0)
			load.WaitMore(t, 100)
			s.PauseLbctl()
			load.WaitMore(t, 6000) // more than a batch, and than a quarter of the log
			s.ContinueLbctl()
			load.WaitMore(t, 1000)
			lostNothing(t, load.Stop())
			s.WaitMetric(0, "lbctl_requests_in_flight", "service", hello)
			s.WaitMetric(0, "lbctl_accesslog_lost_total")
		}
	})
}

// TestRequestsInFlight keeps requests going while lbctl and nginx are killed, and while lines get lost.
func TestRequestsInFlight(t *testing.T) {
	t.Parallel() // it mostly waits
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		s := alone(t, binary, "--requests-in-flight", "on", "--access-log-size", "256k", "--probe", "off")
		s.backends(t, 1, 1)
		p := patient(t, s)
		p.are(0)
		p.call(5)
		p.are(5)

		s.KillLbctl()
		p.call(2)
		p.leave(3)
		s.StartLbctl()
		p.are(4)
		p.ended(3)

		s.Nginx().Reload() // former workers have them now
		p.call(2)
		p.are(6)
		p.leave(1)
		p.are(5)
		p.ended(4)

		// Without room for their lines, lbctl can't know what became of those 5.
		s.PauseLbctl()
		load := lbtest.StartLoad(t, s.GRPC, 8, 0)
		load.WaitMore(t, 4000)
		lostNothing(t, load.Stop())
		s.ContinueLbctl()
		p.are(0)
		_, lost := s.unchanged(t) // until it knows all of the loss
		assert.Positive(t, lost)
		p.call(2)
		p.are(2)
		p.leave(5) // those of before
		p.ended(9)
		p.are(2)
		s.WaitMetric(0, "lbctl_requests_in_flight", "service", hello)

		s.Nginx().Kill()
		p.leave(2)
		p.are(0)
		s.StartNginx()
		s.WaitServing(slow, 1)
		p.call(3)
		p.are(3)

		// An operator turns it off and on again.
		s.StopLbctl()
		s.StartLbctl("--requests-in-flight", "off")
		s.WaitServing(slow, 1)
		s.Eventually("nobody counts", func() error {
			m, err := s.Metrics()
			if n := len(m.Series("lbctl_requests_in_flight")); n > 0 {
				return fmt.Errorf("there are %d series", n)
			}
			return err
		})
		p.leave(1)
		p.ended(10) // so this lbctl knows what the next one can't
		s.StopLbctl()
		s.StartLbctl()
		s.WaitServing(slow, 1)
		p.are(0)
		p.leave(2)
		s.Eventually("a request that begins counts", func() error {
			p.call(1)
			m, err := s.Metrics()
			if n, _ := m.Value("lbctl_requests_in_flight", "service", slow); err == nil && n == 0 {
				return errors.New("none counts")
			}
			return err
		})
	})
}
