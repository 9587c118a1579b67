//go:build bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

const (
	// quiet is for how long an instance must not have answered to be taken for
	// gone: twice what the slowest of the balancers takes to hear of it.
	quiet = 3 * time.Second
	// calm is the pause before each change, so that none is held up by the one
	// before: this is about one change, bench-loss is about many.
	calm = 1500 * time.Millisecond
	// callPause is between the calls of each balancer's one caller, who gets every
	// second one answered by the instance in question.
	callPause = 4 * time.Millisecond
)

// TestConvergence measures the time from Consul's acceptance of an instance as
// passing to the first call it answers, and from the acceptance of its
// maintenance to the last, for all balancers at the same moments: ROUNDS (20)
// instances, one after another, beside one that stays.
func TestConvergence(t *testing.T) {
	s := newSite(t)
	rounds := number(t, "ROUNDS", 20)
	grpc := &fleet{site: s, name: grpcService, start: startGRPC}
	web := &fleet{site: s, name: httpService, start: startHTTP}
	grpc.add(t)
	web.add(t)
	all := peers()
	var systems []*converging
	for _, p := range all {
		if p.missing == "" {
			b := p.start(t, s)
			awaitServed(t, s, b, grpc, web)
			systems = append(systems, &converging{name: p.name, load: grpcUnary.load(t, b.fronts(), s.identity, 1, callPause)})
		}
	}
	for range rounds {
		rest()
		backend := grpc.add(t)
		accepted := time.Now()
		for _, system := range systems {
			system.awaitFirst(t, backend.name)
			system.added = append(system.added, system.load.First(backend.name).Sub(accepted))
		}
		rest()
		require.NoError(t, backend.drain(grpc.consul()))
		accepted = time.Now()
		for _, system := range systems {
			system.awaitQuiet(t, backend.name)
			// One that had answered for the last time before took no time at all.
			system.removed = append(system.removed, max(0, system.load.Last(backend.name).Sub(accepted)))
		}
		require.NoError(t, grpc.takeLast().leave(grpc.consul()))
	}

	r := newReport(t, "convergence", "From Consul's acceptance to the first call served, and to the last")
	r.paragraph("%d instances of a gRPC service, one after another, each added beside one that stays and, at least %s later,"+
		" put into maintenance. All balancers ran at the same time and saw the same changes; each had one caller, who"+
		" pauses %s between calls, so that figures are right to some %s.", rounds, calm, callPause, 3*callPause)
	var added, removed [][]string
	for _, system := range systems {
		result := system.load.Stop()
		added = append(added, system.row(system.added, systems[0].added, result))
		removed = append(removed, system.row(system.removed, systems[0].removed, result)[:5])
	}
	r.heading("Added: to the first call served")
	r.table([]string{"", "median", "99th percentile", "longest", "median, ratio", "failed calls of the run"}, added)
	r.heading("Removed: to the last call served")
	r.table([]string{"", "median", "99th percentile", "longest", "median, ratio"}, removed)
	r.peers(all)
	r.done()
	grpc.disband(t)
	web.disband(t)
}

// rest waits until all is calm, for a time that keeps in step with nobody's timer.
func rest() { time.Sleep(calm + rand.N(time.Second)) }

type converging struct {
	name           string
	load           *lbtest.Load
	added, removed []time.Duration
}

func (c *converging) awaitFirst(t *testing.T, backend string) {
	t.Helper()
	lbtest.Eventually(t, c.name+" serves "+backend, func() error {
		if c.load.First(backend).IsZero() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

func (c *converging) awaitQuiet(t *testing.T, backend string) {
	t.Helper()
	lbtest.Eventually(t, c.name+" serves "+backend+" no longer", func() error {
		if since := time.Since(c.load.Last(backend)); since < quiet {
			return fmt.Errorf("it answered %s ago", since)
		}
		return nil
	})
}

func (c *converging) row(times, against []time.Duration, result lbtest.Result) []string {
	ratio := "-" // to what is shorter than can be told
	if median(against) >= time.Millisecond {
		ratio = fmt.Sprintf("%.2f", float64(median(times))/float64(median(against)))
	}
	return []string{
		c.name, seconds(median(times)), seconds(quantile(times, 0.99)), seconds(quantile(times, 1)),
		ratio,
		fmt.Sprintf("%d of %d", result.Failed(), result.Calls),
	}
}
