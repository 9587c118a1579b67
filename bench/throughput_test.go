//go:build bench

package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// The load of every system, as many calls in flight as callers.
const (
	throughputCallers = 64
	grpcConnections   = 8 // shared by the gRPC callers
	instances         = 3 // of each service
)

// TestThroughput measures calls a second, and the processor time that the
// balancer takes for one, in ROUNDS rounds (3) of SPAN (2s) for each system and
// kind of call. Rounds are interleaved: what else the machine does falls on all.
// TestThroughput's second half does the same with variants of a hand-written
// nginx, to find out what makes a gRPC call cheaper.
func TestThroughput(t *testing.T) {
	s := newSite(t)
	rounds, span := number(t, "ROUNDS", 3), duration(t, "SPAN", 2*time.Second)
	grpc := &fleet{site: s, name: grpcService, start: startGRPC}
	web := &fleet{site: s, name: httpService, start: startHTTP}
	for range instances {
		grpc.add(t)
		web.add(t)
	}
	r := newReport(t, "throughput", "Calls a second, and what one costs")
	r.paragraph("%d rounds of %s for each system and kind of call, interleaved, in which %d callers call without pause;"+
		" the gRPC ones share %d connections, the HTTP ones have one each. %d instances of each service. Callers and instances"+
		" run on the same cores as the balancer. Figures are medians of the rounds.",
		rounds, span, throughputCallers, grpcConnections, instances)

	all := peers()
	var systems []*system
	base := handwritten{Workers: workers, Upstreams: grpc.upstream(64, true) + web.upstream(64, true)}
	systems = append(systems, &system{name: "nginx by hand", balancer: base.start(t, s)})
	for _, p := range all {
		if p.missing == "" && !p.sameProxy {
			systems = append(systems, &system{name: p.name, balancer: p.start(t, s)})
		}
	}
	for _, system := range systems {
		awaitServed(t, s, system.balancer, grpc, web)
	}
	kinds := []kind{grpcUnary, grpcUnaryTLS, http1, http1TLS}
	compare(t, s, systems, kinds, rounds, span)
	r.heading("Balancers")
	r.paragraph("Each figure beside it is the ratio to the hand-written nginx in the same rounds.")
	for _, k := range kinds {
		r.table([]string{k.name, "calls/s", "ratio", "processor time a call", "ratio", "failed"}, rows(systems, k))
	}

	var variants []*system
	for _, v := range nginxVariants(s, grpc, web) {
		if v.missing == "" {
			b := v.conf.start(t, s)
			awaitServed(t, s, b, grpc, web)
			variants = append(variants, &system{name: v.name, balancer: b})
		}
	}
	compare(t, s, variants, []kind{grpcUnary}, rounds, span)
	r.heading("What makes a gRPC call cheaper")
	r.paragraph("The hand-written nginx (%d workers, `zone`, `keepalive 64`, `grpc_pass`), and the same with one thing changed.", workers)
	r.table([]string{grpcUnary.name, "calls/s", "ratio", "processor time a call", "ratio", "failed"}, rows(variants, grpcUnary))

	r.peers(all)
	r.done()
	grpc.disband(t)
	web.disband(t)
}

// A system is what is measured, and its rounds.
type system struct {
	name     string
	balancer balancer
	rounds   map[string][]round // by kind
}

// A round is what one system did in one of them.
type round struct {
	rate   float64       // calls a second
	cost   time.Duration // of the balancer's processor time, for one call
	failed int
}

// compare measures all systems, one after another, round by round, every other
// one backwards.
func compare(t *testing.T, s *site, systems []*system, kinds []kind, rounds int, span time.Duration) {
	t.Helper()
	for _, k := range kinds {
		teams := make([]*team, len(systems))
		for i, system := range systems {
			teams[i] = newTeam(t, s, system.balancer, k)
			teams[i].run(t, span/4) // connections are opened, caches warm
			if system.rounds == nil {
				system.rounds = map[string][]round{}
			}
		}
		for n := range rounds {
			for i := range systems {
				if n%2 == 1 {
					i = len(systems) - 1 - i
				}
				systems[i].rounds[k.name] = append(systems[i].rounds[k.name], teams[i].run(t, span))
			}
		}
		for _, team := range teams {
			team.close()
		}
	}
}

// A team is the callers of one system.
type team struct {
	balancer balancer
	callers  []lbtest.Caller // some are shared
	own      []lbtest.Caller
}

func newTeam(t *testing.T, s *site, b balancer, k kind) *team {
	t.Helper()
	connections := throughputCallers
	if k.front == grpcPlain || k.front == grpcTLS {
		connections = grpcConnections
	}
	team := &team{balancer: b}
	for range connections {
		caller, err := k.caller(b.fronts(), s.identity)
		require.NoError(t, err)
		team.own = append(team.own, caller)
	}
	for i := range throughputCallers {
		team.callers = append(team.callers, team.own[i%connections])
	}
	return team
}

func (team *team) close() {
	for _, caller := range team.own {
		caller.Close()
	}
}

// run has all callers call for a while.
func (team *team) run(t *testing.T, span time.Duration) round {
	t.Helper()
	var calls, failed atomic.Int64
	var done sync.WaitGroup
	before, start := cpuTime(team.balancer.processes()...), time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), span+10*time.Second)
	defer cancel()
	for _, caller := range team.callers {
		done.Go(func() {
			for time.Since(start) < span {
				if _, err := caller.Call(ctx); err != nil {
					failed.Add(1)
					continue
				}
				calls.Add(1)
			}
		})
	}
	done.Wait()
	took, used := time.Since(start), cpuTime(team.balancer.processes()...)-before
	require.NotZero(t, calls.Load(), "no call was answered")
	return round{
		rate:   float64(calls.Load()) / took.Seconds(),
		cost:   used / time.Duration(calls.Load()),
		failed: int(failed.Load()),
	}
}

// rows are one kind's figures, each beside its ratio to the first system's.
func rows(systems []*system, k kind) [][]string {
	var all [][]string
	for _, system := range systems {
		var rates, costs, rateRatios, costRatios []float64
		failed := 0
		for i, round := range system.rounds[k.name] {
			first := systems[0].rounds[k.name][i]
			rates, costs = append(rates, round.rate), append(costs, float64(round.cost.Microseconds()))
			rateRatios = append(rateRatios, round.rate/first.rate)
			costRatios = append(costRatios, float64(round.cost)/float64(first.cost))
			failed += round.failed
		}
		all = append(all, []string{
			system.name,
			fmt.Sprintf("%.0f", median(rates)), fmt.Sprintf("%.2f", median(rateRatios)),
			fmt.Sprintf("%.0f µs", median(costs)), fmt.Sprintf("%.2f", median(costRatios)),
			fmt.Sprint(failed),
		})
	}
	return all
}
