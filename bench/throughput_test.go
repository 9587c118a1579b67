//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
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

	// warmUp is the time until connections are open and caches are warm.
	warmUp = 150 * time.Millisecond
	// slice is how long one of two systems runs before the other one takes its turn. It
	// is long enough for many calls, and shorter than most other loads on the machine.
	slice = 100 * time.Millisecond
)

// TestThroughput measures calls a second, and the processor time that the
// balancer takes for one, in ROUNDS rounds (5) of SPAN (500ms) for each system and
// kind of call. In each round the system takes turns with a hand-written nginx, the
// reference, so that other loads on the machine affect both. The second half, which PEERS
// leaves out, does the same with variants of that nginx, to find out what makes a gRPC
// call cheaper.
func TestThroughput(t *testing.T) {
	s := newSite(t)
	rounds, span := number(t, "ROUNDS", 5), duration(t, "SPAN", 500*time.Millisecond)
	grpc, web := newFleets(t, s)
	r := newReport(t, "throughput", "Calls a second, and what one costs")
	r.paragraph("%d rounds of %s for each system and kind of call, in which %d callers call without pause; the gRPC ones share"+
		" %d connections, the HTTP ones have one each. %d instances of each service. Callers and instances run on the same cores"+
		" as the balancer. In each round a balancer and the hand-written nginx, to which the ratios are, take turns every %s: that of calls"+
		" a second is the median of the rounds' ratios, with what it may be at a confidence of 95 %%, that of processor time is of the sums, since a round is too short for the kernel's clock."+
		" The hand-written nginx tells instances who calls, with the headers that lbctl's templates set; what that costs, its second row tells, which is the same without.",
		rounds, span, throughputCallers, grpcConnections, instances, slice)

	all := slices.DeleteFunc(peers(), func(p peer) bool { return p.sameProxy })
	var systems []*system
	base := handwritten{Workers: workers, Upstreams: grpc.upstream(64, true) + web.upstream(64, true)}
	systems = append(systems, &system{name: "nginx by hand", balancer: base.start(t, s)})
	mute := base
	mute.Mute = true
	systems = append(systems, &system{name: "nginx by hand, no forwarding headers", balancer: mute.start(t, s)})
	for _, p := range all {
		if p.missing == "" {
			systems = append(systems, &system{name: p.name, balancer: p.start(t, s)})
		}
	}
	for _, system := range systems {
		awaitServed(t, s, system.balancer, grpc, web)
	}
	kinds := []kind{grpcUnary, grpcUnaryTLS, http1, http1TLS}
	compare(t, s, systems, kinds, rounds, span)
	r.heading("Balancers")
	for _, k := range kinds {
		r.table([]string{k.name, "calls/s", "ratio", "processor time per call", "ratio", "failed"}, rows(systems, k))
	}

	if os.Getenv("PEERS") == "" {
		compareVariants(t, s, r, grpc, web, rounds, span)
	}

	r.peers(all)
	r.done()
	grpc.disband(t)
	web.disband(t)
}

// compareVariants looks for what makes a gRPC call cheaper.
func compareVariants(t *testing.T, s *site, r *report, grpc, web *fleet, rounds int, span time.Duration) {
	t.Helper()
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
	r.table([]string{grpcUnary.name, "calls/s", "ratio", "processor time per call", "ratio", "failed"}, rows(variants, grpcUnary))
}

// A system is a balancer under measurement.
type system struct {
	name     string
	balancer balancer
	pairs    map[string][]pair // by kind of call
}

// A pair is a round of one system, and the round of the reference that alternates with it.
type pair struct{ own, reference round }

// A round is what one system did in one round: its calls, and the balancer's cost.
type round struct {
	took          time.Duration
	used          time.Duration // the balancer's processor time
	calls, failed int
}

// add adds a part of the round.
func (r *round) add(part round) {
	r.took += part.took
	r.used += part.used
	r.calls += part.calls
	r.failed += part.failed
}

// rate is calls a second.
func (r round) rate() float64 { return float64(r.calls) / r.took.Seconds() }

// compare measures all systems in pairs. The first one is the reference for all, also
// for itself: that row shows how much of a difference is chance.
func compare(t *testing.T, s *site, systems []*system, kinds []kind, rounds int, span time.Duration) {
	t.Helper()
	for _, system := range systems {
		if system.pairs == nil {
			system.pairs = map[string][]pair{}
		}
	}
	for _, k := range kinds {
		for range rounds {
			for _, system := range systems {
				system.pairs[k.name] = append(system.pairs[k.name], measure(t, s, system.balancer, systems[0].balancer, k, span))
			}
		}
	}
}

// measure is one round of a balancer and of the reference. They take turns every slice,
// so that other loads on the machine affect both alike. Each round opens new
// connections: chance decides how many of them each worker of nginx gets, and otherwise
// one such distribution would last for a whole run.
func measure(t *testing.T, s *site, own, reference balancer, k kind, span time.Duration) (p pair) {
	t.Helper()
	sides := []struct {
		team *team
		into *round
	}{{newTeam(t, s, own, k), &p.own}, {newTeam(t, s, reference, k), &p.reference}}
	for _, side := range sides {
		defer side.team.close()
		side.team.run(t, warmUp)
	}
	for took := time.Duration(0); took < span; took += slice {
		for _, side := range sides {
			side.into.add(side.team.run(t, min(slice, span-took)))
		}
		slices.Reverse(sides) // so that neither always comes after the other
	}
	return p
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

// run makes all callers call for a while.
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
		took:   took,
		used:   used,
		calls:  int(calls.Load()),
		failed: int(failed.Load()),
	}
}

// cost is the processor time of one call, in microseconds.
func cost(rounds []round) float64 {
	var used time.Duration
	calls := 0
	for _, r := range rounds {
		used += r.used
		calls += r.calls
	}
	return float64(used.Microseconds()) / float64(calls)
}

// rows are the systems' figures for one kind of call.
func rows(systems []*system, k kind) [][]string {
	var all [][]string
	for _, system := range systems {
		var rates, ratios []float64
		var own, reference []round
		failed := 0
		for _, p := range system.pairs[k.name] {
			rates, ratios = append(rates, p.own.rate()), append(ratios, p.own.rate()/p.reference.rate())
			own, reference = append(own, p.own), append(reference, p.reference)
			failed += p.own.failed
		}
		all = append(all, []string{
			system.name,
			fmt.Sprintf("%.0f", median(rates)), medianRatio(ratios),
			fmt.Sprintf("%.0f µs", cost(own)), fmt.Sprintf("%.2f", cost(own)/cost(reference)),
			fmt.Sprint(failed),
		})
	}
	return all
}
