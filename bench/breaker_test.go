//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/kv"
)

// justNginx is a balancer of which only nginx's processor time counts.
type justNginx struct{ *own }

func (n justNginx) processes() []int { return []int{n.Nginx().PID()} }

// TestBreaker measures what the circuit breaker costs: nginx's processor time for a call, and
// calls a second, in ROUNDS pairs (12) of SPAN (1s) of two lbctl that take turns, one of which
// has a policy with it; and lbctl's own processor time. The first row is lbctl without it
// against itself, which shows how much of a difference is chance.
func TestBreaker(t *testing.T) {
	s := newSite(t)
	rounds, span := number(t, "ROUNDS", 12), duration(t, "SPAN", time.Second)
	grpc, web := newFleets(t, s)
	const prefix = "breaker"
	store, err := kv.Open(&api.Config{Address: s.lbs.Addr}, prefix)
	require.NoError(t, err)
	document, err := store.Read(context.Background(), "default")
	require.NoError(t, err)
	require.NoError(t, store.Write(context.Background(), kv.Change{Kind: "set", Why: "benchmark"},
		kv.Edit{Before: document, Value: []byte(`{"outlier.consecutive-errors": 5, "outlier.error-rate": 50}`)}))

	r := newReport(t, "breaker", "What the circuit breaker costs")
	r.paragraph("%d pairs of %s for each row and kind of call, in which %d callers call without pause, as in [throughput](throughput.md); %d instances of each service."+
		" In each pair a balancer and the reference, lbctl without a circuit breaker, take turns every %s. The processor time is nginx's."+
		" The ratio of calls a second is the median of the pairs' ratios, with what it may be at a confidence of 95 %%; that of processor time is of the sums.",
		rounds, span, throughputCallers, instances, slice)
	off, on := startOurs(t, s, nil), startOurs(t, s, []string{"--kv-prefix", prefix})
	systems := []*system{{name: "without, against itself", balancer: justNginx{off}}, {name: "with the circuit breaker", balancer: justNginx{on}}}
	for _, system := range systems {
		awaitServed(t, s, system.balancer, grpc, web)
	}
	for _, k := range []kind{grpcUnary, http1} {
		before := [2]time.Duration{ownTime(off.PID()), ownTime(on.PID())}
		began := time.Now()
		compare(t, s, systems, []kind{k}, rounds, span)
		took := time.Since(began)
		r.table([]string{k.name, "calls/s", "ratio", "nginx's time per call", "ratio", "failed"}, rows(systems, k))
		calls := 0
		for _, p := range systems[1].pairs[k.name] {
			calls += p.own.calls
		}
		// Its other work is the same without the circuit breaker.
		more := ownTime(on.PID()) - before[1] - (ownTime(off.PID()) - before[0])
		r.paragraph("lbctl itself used %s more than the other one in %s, for %d calls: %s of a core at 5,000 calls a second.",
			more, took.Round(time.Second), calls, fmt.Sprintf("%.1f %%", 100*5000*more.Seconds()/float64(calls)))
	}
	r.done()
	grpc.disband(t)
	web.disband(t)
}
