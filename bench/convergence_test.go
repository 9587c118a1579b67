//go:build bench

package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
)

// TestConvergence measures the time from Consul's acceptance of a registration
// as passing to the first call that the new instance answers, for lbctl and, at
// the same moments, for consul-template with a reload of nginx: 50 registrations
// two seconds apart, or as many as ROUNDS says. Every new instance replaces the
// one before, so that it gets every second call.
func TestConvergence(t *testing.T) {
	rounds := 50
	if n, err := strconv.Atoi(os.Getenv("ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	cluster := consultest.StartCluster(t, 3)
	apps, balancers := cluster.StartClient(), cluster.StartClient()
	consul := apps.Client()
	binary := nginx(t)

	ours := lbtest.Start(t, lbtest.Options{Consul: balancers.Addr, Nginx: binary})
	recipe := startRecipe(t, balancers.Addr, binary)
	base := lbtest.StartBackend(t, "base")
	base.Register(t, consul, service)
	ours.WaitServing(service, 1)

	systems := []*measured{
		{name: "lbctl", load: lbtest.StartLoad(t, ours.GRPC, 2, 4*time.Millisecond)},
		{name: "consul-template + reload", load: lbtest.StartLoad(t, recipe, 2, 4*time.Millisecond)},
	}
	next := time.Now()
	for i := range rounds {
		next = next.Add(2 * time.Second)
		time.Sleep(time.Until(next))
		backend := lbtest.StartBackend(t, fmt.Sprintf("server-%d", i))
		backend.Register(t, consul, service)
		accepted := time.Now()
		for _, s := range systems {
			lbtest.Eventually(t, s.name+" serves "+backend.Name, func() error {
				if s.load.First(backend.Name).IsZero() {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			s.times = append(s.times, s.load.First(backend.Name).Sub(accepted))
		}
		require.NoError(t, consul.Agent().ServiceDeregister(service+"-"+backend.Name))
	}

	fmt.Printf("\nFrom Consul's acceptance of an instance to the first call it answers: %d registrations, nginx %s\n\n", rounds, binary.Version)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmedian\tp99\tmax\tmedian against lbctl\tcalls\tfailed\t")
	for _, s := range systems {
		result := s.load.Stop()
		fmt.Fprintf(w, "%s\t%.3f s\t%.3f s\t%.3f s\t%.2f\t%d\t%d\t\n", s.name,
			quantile(s.times, 0.5).Seconds(), quantile(s.times, 0.99).Seconds(), quantile(s.times, 1).Seconds(),
			quantile(s.times, 0.5).Seconds()/quantile(systems[0].times, 0.5).Seconds(), result.Calls, result.Failed())
	}
	w.Flush()
}

type measured struct {
	name  string
	load  *lbtest.Load
	times []time.Duration
}

// quantile is the smallest of the times that a share of q does not exceed.
func quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, min(len(sorted)-1, int(float64(len(sorted))*q+0.999999)-1))]
}
