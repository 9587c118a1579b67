package integration

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// resync bounds the time until nginx serves changes that were made while lbctl was away:
// every five seconds nginx sends a copy of a question that has no answer.
const resync = 15 * time.Second

// TestCallsGoOnWhileLbctlHangs leaves nginx's questions without an answer, and
// checks that no call fails.
func TestCallsGoOnWhileLbctlHangs(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, asking(t))
	all := s.backends(t, 1, 3)
	generation := s.settled(t, 1)
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)

	for n, away := range []struct {
		name       string
		leave      func()
		comeBack   func()
		longEnough time.Duration
	}{
		{"paused", s.PauseLbctl, s.ContinueLbctl, 20 * time.Second},
		{"killed", s.KillLbctl, func() { s.StartLbctl() }, 8 * time.Second},
	} {
		fresh := lbtest.StartBackend(t, fmt.Sprintf("fresh-%d", n))
		t.Run(away.name, func(t *testing.T) {
			away.leave()
			gone := time.Now()
			fresh.Register(t, s.consul, hello)
			require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-"+all[n].Name, "leaving"))
			time.Sleep(time.Until(gone.Add(away.longEnough))) // the absence is a time by itself
			assert.Zero(t, load.First(fresh.Name), "nginx must not know it yet")

			back := time.Now()
			away.comeBack()
			s.Eventually("only the new server answers, not the old one", func() error {
				if load.First(fresh.Name).IsZero() || time.Since(load.Last(all[n].Name)) < time.Second {
					return errors.New("not yet")
				}
				return nil
			})
			came, left := load.First(fresh.Name).Sub(back), load.Last(all[n].Name).Sub(back)
			t.Logf("the new server answered %s after lbctl was back, the old one answered last %s after", came.Round(time.Millisecond), left.Round(time.Millisecond))
			assert.Less(t, max(came, left), resync)
			s.WaitServing(hello, 3)
		})
	}
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
	status, err := s.Status()
	require.NoError(t, err)
	assert.Equal(t, generation, status.Nginx.Generation, "no reload was needed")
}

// TestAnNginxThatStopsAskingIsReloaded answers nginx's questions with an error while lbctl
// is away. After such an answer nginx doesn't ask for an hour.
func TestAnNginxThatStopsAskingIsReloaded(t *testing.T) {
	t.Parallel() // it mostly waits
	s := alone(t, asking(t))
	all := s.backends(t, 1, 2)
	s.settled(t, 1)
	load := lbtest.StartLoad(t, s.GRPC, 4, pause)

	s.KillLbctl()
	conn, err := net.ListenPacket("udp", s.DNS())
	require.NoError(t, err)
	failed := make(chan struct{}, 1)
	other := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		if w.WriteMsg(new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)) == nil {
			failed <- struct{}{}
		}
	})}
	go other.ActivateAndServe()
	select {
	case <-failed:
	case <-time.After(30 * time.Second):
		t.Fatal("nginx has not asked")
	}
	require.NoError(t, other.Shutdown())
	fresh := lbtest.StartBackend(t, "fresh")
	fresh.Register(t, s.consul, hello)
	require.NoError(t, s.consul.Agent().EnableServiceMaintenance(hello+"-"+all[0].Name, "leaving"))

	s.StartLbctl()
	s.Eventually("only the new server answers, not the old one", func() error {
		if load.First(fresh.Name).IsZero() || time.Since(load.Last(all[0].Name)) < time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	assert.Contains(t, s.Log(), "nginx did not ask for its servers, and was reloaded")
	load.WaitMore(t, 100)
	lostNothing(t, load.Stop())
}
