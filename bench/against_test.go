//go:build bench

package bench

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// TestAgainst compares this lbctl with another one, OLD, the path of the program built from an
// earlier commit: calls a second, and nginx's processor time for a call, in ROUNDS pairs (12) of
// SPAN (1s). Both have no policies. The first row is the other one against itself, which shows
// how much of a difference is chance.
func TestAgainst(t *testing.T) {
	old := os.Getenv("OLD")
	if old == "" {
		t.Fatal("OLD: want the path of an lbctl built from another commit")
	}
	_, err := exec.LookPath(old)
	require.NoError(t, err, "OLD")
	s := newSite(t)
	rounds, span := number(t, "ROUNDS", 12), duration(t, "SPAN", time.Second)
	grpc, web := newFleets(t, s)

	r := newReport(t, "against", "What the newest commits cost a call")
	r.paragraph("%d pairs of %s for each row and kind of call, in which %d callers call without pause, as in [throughput](throughput.md); %d instances of each service."+
		" In each pair an lbctl and the other commit's take turns every %s. The processor time is nginx's."+
		" The ratio of calls a second is the median of the pairs' ratios, with what it may be at a confidence of 95 %%; that of processor time is of the sums.",
		rounds, span, throughputCallers, instances, slice)
	start := func(program string) balancer {
		return justNginx{startLbctl(t, s, fronts{}, lbtest.Options{Lbctl: program})}
	}
	systems := []*system{{name: "the other commit, against itself", balancer: start(old)}, {name: "this commit", balancer: start("")}}
	for _, system := range systems {
		awaitServed(t, s, system.balancer, grpc, web)
	}
	kinds := []kind{grpcUnary, http1}
	compare(t, s, systems, kinds, rounds, span)
	for _, k := range kinds {
		r.table([]string{k.name, "calls/s", "ratio", "nginx's time per call", "ratio", "failed"}, rows(systems, k))
	}
	r.done()
	grpc.disband(t)
	web.disband(t)
}
