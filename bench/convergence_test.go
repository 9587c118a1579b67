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
	// quiet is how long an instance must not have answered to count as gone: twice
	// the time that the slowest balancer takes to learn of a change.
	quiet = 3 * time.Second
	// longestPause bounds the pauses before single changes. The pauses are random, so
	// that they are not in step with any balancer's timer.
	longestPause = 12 * time.Second
	// pairPause bounds the pauses before the second of two changes.
	pairPause = time.Second
	// patience is how long a balancer may take to follow a change.
	patience = 30 * time.Second
	// callPause is between two calls of a balancer's only caller. The instance in
	// question answers every third call.
	callPause = 4 * time.Millisecond
)

// TestConvergence measures the time from Consul's acceptance of an instance as
// passing to the first call it answers, and from the acceptance of its
// maintenance to the last, for all balancers at the same moments. In each of ROUNDS
// (30) rounds two instances are added beside one that stays, and removed: the first
// of the two after a pause of up to 12 s, the second within a second of the first.
func TestConvergence(t *testing.T) {
	s := newSite(t)
	rounds := number(t, "ROUNDS", 30)
	grpc := &fleet{site: s, name: grpcService, start: startGRPC}
	web := &fleet{site: s, name: httpService, start: startHTTP}
	grpc.add(t)
	web.add(t)
	all := withControl(peers())
	var systems []*converging
	for _, p := range all {
		if p.missing == "" {
			b := p.start(t, s)
			awaitServed(t, s, b, grpc, web)
			systems = append(systems, &converging{name: p.name, load: grpcUnary.load(t, b.fronts(), s.identity, 1, callPause)})
		}
	}
	for range rounds {
		var pair [2]*backend
		change(systems, func(c *converging) *pairTimes { return &c.added }, func(n int) (string, func(*converging) time.Time) {
			pair[n] = grpc.add(t)
			name := pair[n].name
			return name, func(c *converging) time.Time { return c.load.First(name) }
		}, (*converging).awaitFirst)
		change(systems, func(c *converging) *pairTimes { return &c.removed }, func(n int) (string, func(*converging) time.Time) {
			require.NoError(t, pair[n].drain(grpc.consul()))
			name := pair[n].name
			return name, func(c *converging) time.Time { return c.load.Last(name) }
		}, (*converging).awaitQuiet)
		for range pair {
			require.NoError(t, grpc.takeLast().leave(grpc.consul()))
		}
	}
	convergenceReport(t, all, systems, rounds)
	grpc.disband(t)
	web.disband(t)
}

// withControl adds the first balancer a second time. The machine causes the difference
// between the two rows.
func withControl(all []peer) []peer {
	if len(all) == 0 {
		return all
	}
	control := all[0]
	control.name += ", again"
	control.with = "The first row's balancer once more, at the same time: how far apart the two are is what the machine does to a row."
	return append([]peer{all[0], control}, all[1:]...)
}

// change makes two changes, each after a pause. The function each makes one change. It
// returns the instance's name, and a function that says when a balancer has followed.
// The function follow waits until a balancer has followed.
func change(systems []*converging, times func(*converging) *pairTimes,
	each func(n int) (name string, followed func(*converging) time.Time), follow func(*converging, string) bool) {
	var names [2]string
	var accepted [2]time.Time
	var followed [2]func(*converging) time.Time
	for n, pause := range []time.Duration{longestPause, pairPause} {
		time.Sleep(rand.N(pause))
		names[n], followed[n] = each(n)
		accepted[n] = time.Now()
	}
	for _, c := range systems {
		for n := range names {
			if c.stuck = c.stuck || !follow(c, names[n]); c.stuck {
				break // to wait for it each time would take hours
			}
			// A balancer may follow before Consul's acceptance is back: then it took no time.
			times(c)[n] = append(times(c)[n], max(0, followed[n](c).Sub(accepted[n])))
		}
	}
}

// pairTimes are the times a balancer took, for single changes and for the second of two.
type pairTimes [2][]time.Duration

type converging struct {
	name           string
	load           *lbtest.Load
	added, removed pairTimes
	stuck          bool // it did not follow a change within patience
}

func (c *converging) awaitFirst(backend string) bool {
	return await(func() bool { return !c.load.First(backend).IsZero() })
}

func (c *converging) awaitQuiet(backend string) bool {
	return await(func() bool { return time.Since(c.load.Last(backend)) >= quiet })
}

// await waits until done is true. It returns false if it isn't within patience.
func await(done func() bool) bool {
	for began := time.Now(); !done(); {
		if time.Since(began) > patience {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

func convergenceReport(t *testing.T, all []peer, systems []*converging, rounds int) {
	r := newReport(t, "convergence", "From Consul's acceptance to the first call served, and to the last")
	r.paragraph("A gRPC service has one instance that stays. In each of %d rounds two more were added and then put into"+
		" maintenance, one after the other. Before the first of the two there was a pause, drawn at random from 0 to %s: this is a"+
		" single change. The second followed within a second of the first, after a pause drawn from 0 to %s. The balancers ran at the same"+
		" time and saw the same changes.", rounds, longestPause, pairPause)
	r.paragraph("Each balancer had one caller, who pauses %s between calls, and every third call goes to the instance in question:"+
		" times are right to some %s. A time of 0.000 s says that the balancer followed before Consul's answer had come back."+
		" A time of %s says that it did not follow within it."+
		" Of %d changes, the 99th percentile is the %s.", callPause, 4*callPause, patience, rounds, ordinalOf99(rounds))
	r.paragraph("nginx asks lbctl by DNS again one second after each answer. The second of two changes mostly falls into that second," +
		" and then reaches nginx at its end.")
	for _, c := range systems {
		if c.stuck {
			r.paragraph("%s did not follow one of the changes within %s and was given up: its times are those from before.", c.name, patience)
		}
	}
	kinds := []string{"single changes", "the second of two within a second"}
	for n, kind := range kinds {
		for _, what := range []struct {
			title string
			times func(*converging) *pairTimes
		}{
			{"Added, " + kind + ": to the first call served", func(c *converging) *pairTimes { return &c.added }},
			{"Removed, " + kind + ": to the last call served", func(c *converging) *pairTimes { return &c.removed }},
		} {
			r.heading(what.title)
			var rows [][]string
			for _, c := range systems {
				times := what.times(c)[n]
				if len(times) == 0 {
					rows = append(rows, []string{c.name, "-", "-", "-", "-"})
					continue
				}
				rows = append(rows, []string{c.name, seconds(median(times)), seconds(quantile(times, 0.9)), seconds(quantile(times, 0.99)), seconds(quantile(times, 1))})
			}
			r.table([]string{"", "median", "90th percentile", "99th percentile", "longest"}, rows)
		}
	}
	r.heading("Failed calls of the whole run")
	var rows [][]string
	for _, c := range systems {
		result := c.load.Stop()
		rows = append(rows, []string{c.name, fmt.Sprint(result.Failed()), fmt.Sprint(result.Calls)})
	}
	r.table([]string{"", "failed", "of"}, rows)
	r.peers(all)
	r.done()
}

// ordinalOf99 says which of n sorted values is their 99th percentile.
func ordinalOf99(n int) string {
	if n < 100 {
		return "longest"
	}
	return fmt.Sprintf("longest but %d", n/100)
}
