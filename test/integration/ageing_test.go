package integration

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/protos"
)

// TestInstancesThatComeAndGoLeaveNoSeries replaces all instances of a service several times, while a
// stream to one of the first ones stays open.
func TestInstancesThatComeAndGoLeaveNoSeries(t *testing.T) {
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		const rounds, each = 4, 30
		s := alone(t, binary, "--metrics-linger", "1s")
		port := lbtest.StartEverywhere(t).Port
		address := func(round, n int) string { return fmt.Sprintf("127.1.%d.%d", round, n+1) }
		id := func(round, n int) string { return fmt.Sprintf("%s-%d-%d", hello, round, n) }
		conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		ping := protos.NewPingClient(conn)
		endpoints := func() map[string]bool {
			m, err := s.Metrics()
			require.NoError(t, err)
			all := map[string]bool{}
			for _, series := range m.Series("lbctl_upstream_requests_total", "service", hello) {
				for _, l := range series.Label {
					if l.GetName() == "endpoint" {
						all[l.GetValue()] = true
					}
				}
			}
			return all
		}

		var stream protos.Ping_StreamClient
		for round := range rounds {
			for n := range each {
				require.NoError(t, s.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
					ID: id(round, n), Name: hello, Address: address(round, n), Port: port, Tags: []string{"grpc_server"},
					Meta: map[string]string{"lb-version": strconv.Itoa(round)},
				}))
			}
			if round > 0 {
				for n := range each {
					require.NoError(t, s.consul.Agent().EnableServiceMaintenance(id(round-1, n), "leaving"))
				}
			}
			s.onlyVersion(strconv.Itoa(round), each)
			s.WaitServing(hello, each)
			if round > 0 {
				for n := range each {
					require.NoError(t, s.consul.Agent().ServiceDeregister(id(round-1, n)))
				}
			}
			for range 2 * each {
				_, err := ping.SayHello(t.Context(), &protos.PingMessage{})
				require.NoError(t, err)
			}
			if round == 0 {
				stream, err = ping.Stream(t.Context())
				require.NoError(t, err)
				require.NoError(t, stream.Send(&protos.PingMessage{}))
				_, err = stream.Recv()
				require.NoError(t, err)
			}
		}
		s.WaitServing(hello, each)
		onlyTheLast := func() error {
			all := endpoints()
			for n := range each {
				if !all[net.JoinHostPort(address(rounds-1, n), strconv.Itoa(port))] {
					return fmt.Errorf("%s is missing", address(rounds-1, n))
				}
			}
			if len(all) != each {
				return fmt.Errorf("%d instances have series, want the last %d", len(all), each)
			}
			return nil
		}
		s.Eventually("only the last instances have series", onlyTheLast)
		s.WaitMetric(2*each, "lbctl_upstream_duration_seconds", "service", hello) // of the last version only

		before := s.calls(t)
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.Error(t, err, "the stream ends")
		s.Eventually("the stream is counted", func() error {
			if n := s.calls(t); n != before+1 {
				return fmt.Errorf("%v calls, want %v", n, before+1)
			}
			return nil
		})
		assert.NoError(t, onlyTheLast(), "the late stream makes no series of its instance")
	})
}

// onlyVersion waits until lbctl knows that number of instances of hello with a version, and gives
// no other ones traffic.
func (s *system) onlyVersion(version string, number int) {
	s.Eventually(fmt.Sprintf("%d instances of version %s alone get traffic", number, version), func() error {
		all, err := s.instances()
		if err != nil {
			return err
		}
		found := 0
		for _, i := range all {
			if i.InRotation && i.Version != version {
				return fmt.Errorf("%s gets traffic, too", i.ID)
			}
			if i.InRotation {
				found++
			}
		}
		if found != number {
			return fmt.Errorf("it is %d of them", found)
		}
		return nil
	})
}

// calls returns how many calls to hello have ended.
func (s *system) calls(t *testing.T) (n float64) {
	t.Helper()
	m, err := s.Metrics()
	require.NoError(t, err)
	for _, series := range m.Series("lbctl_requests_total", "service", hello) {
		n += series.Counter.GetValue()
	}
	return n
}
