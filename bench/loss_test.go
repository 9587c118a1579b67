//go:build bench

package bench

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/lbtest"
)

// TestLoss counts the calls that fail and the streams that break while
// instances come and go: CHANGES of them (100), CHANGE_RATE a second (10), with
// each balancer under the same load. An instance that leaves is in maintenance
// for DRAIN (2s) before it stops.
func TestLoss(t *testing.T) {
	s := newSite(t)
	plan := lossPlan{
		changes: number(t, "CHANGES", 100),
		rate:    number(t, "CHANGE_RATE", 10),
		drain:   duration(t, "DRAIN", 2*time.Second),
	}
	all := peers()
	results := map[string]*losses{}
	for _, p := range all {
		if p.missing == "" {
			t.Run(p.name, func(t *testing.T) { results[p.name] = plan.run(t, s, p) })
		}
	}
	if t.Failed() {
		return // there is nothing to report of half a comparison
	}

	r := newReport(t, "loss", "What changes cost calls and streams")
	r.paragraph("%d changes, %d a second, each to the gRPC or the HTTP service in turn: an instance is added; one is replaced"+
		" (a new one registered and passing, then the oldest drained); one is drained. To drain is: maintenance, %s, stop"+
		" gracefully, deregister. Changes overlap. Balancers ran one after another, each with %d callers of each kind, which"+
		" pause %s between calls, and %d streams with a message every %s.",
		plan.changes, plan.rate, plan.drain, lossCallers, lossPause, lossStreams, streamInterval)
	r.paragraph("A call has failed when its caller was told so. grpc-go retries by itself what a connection's end has left" +
		" unanswered; the other callers send POSTs that can't be sent twice. A stream is closed by its caller when the instance" +
		" it is on is about to stop, after the drain; it is broken when it ended before, or could not be opened.")
	r.heading("Failed calls and broken streams per 1,000 changes")
	head := []string{"", "reloads"}
	for _, k := range lossKinds {
		head = append(head, k.name)
	}
	head = append(head, "streams")
	var per, counts, reasons [][]string
	for _, p := range all {
		result := results[p.name]
		if result == nil {
			missing := []string{p.name, "not run"}
			for range len(head) - 2 {
				missing = append(missing, "-")
			}
			per, counts = append(per, missing), append(counts, missing)
			continue
		}
		normal, exact := []string{p.name}, []string{p.name}
		add := func(failed, of int) {
			normal = append(normal, fmt.Sprintf("%.0f", float64(failed)*1000/float64(plan.changes)))
			exact = append(exact, fmt.Sprintf("%d of %d", failed, of))
		}
		add(result.reloads, plan.changes)
		for i, k := range lossKinds {
			add(result.calls[i].Failed(), result.calls[i].Calls)
			reasons = append(reasons, told(p.name, k.name, result.calls[i].Failures)...)
		}
		broken := 0
		for _, n := range result.broken {
			broken += n
		}
		add(broken, result.opened)
		reasons = append(reasons, told(p.name, "streams", result.broken)...)
		per, counts = append(per, normal), append(counts, exact)
	}
	r.table(head, per)
	r.heading("The counts behind it")
	r.table(head, counts)
	if len(reasons) > 0 {
		r.heading("What callers were told")
		r.table([]string{"", "calls", "error", "times"}, reasons)
	}
	r.peers(all)
	r.done()
}

// The load of every balancer.
const (
	lossCallers    = 4
	lossPause      = 10 * time.Millisecond
	lossStreams    = 20
	streamInterval = 100 * time.Millisecond
)

var lossKinds = []kind{grpcUnary, h2cNoRetry, http1, http2TLS}

type lossPlan struct {
	changes, rate int
	drain         time.Duration
}

type losses struct {
	reloads int
	calls   []lbtest.Result // in lossKinds' order
	opened  int             // streams
	broken  map[string]int
}

// run puts one balancer under load, makes the changes, and counts.
func (plan lossPlan) run(t *testing.T, s *site, p peer) *losses {
	grpc := &fleet{site: s, name: grpcService, start: startGRPC}
	web := &fleet{site: s, name: httpService, start: startHTTP}
	for range 4 {
		grpc.add(t)
		web.add(t)
	}
	defer grpc.disband(t)
	defer web.disband(t)
	b := p.start(t, s)
	awaitServed(t, s, b, grpc, web)

	var loads []*lbtest.Load
	for _, k := range lossKinds {
		loads = append(loads, k.load(t, b.fronts(), s.identity, lossCallers, lossPause))
	}
	streams := startStreams(t, b.fronts()[grpcPlain], lossStreams, streamInterval)
	leave := func(backend *backend, consul *api.Client) error {
		if err := backend.drain(consul); err != nil {
			return err
		}
		time.Sleep(plan.drain)
		streams.leave(backend.name)
		time.Sleep(2 * streamInterval)
		return backend.leave(consul)
	}
	before := b.reloads()

	var leaving sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(plan.rate))
	defer tick.Stop()
	for i := range plan.changes {
		<-tick.C
		f := []*fleet{grpc, web}[i%2]
		kind := i / 2 % 3 // added, replaced, drained
		if kind != 2 {
			f.add(t)
		}
		if kind != 0 {
			oldest := f.take()
			leaving.Go(func() {
				if err := leave(oldest, f.consul()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	leaving.Wait()

	result := &losses{}
	for _, load := range loads {
		result.calls = append(result.calls, load.Stop())
	}
	result.opened, result.broken = streams.stop()
	result.reloads = b.reloads() - before
	return result
}

// told are the rows of the errors that callers of one kind were told.
func told(peer, calls string, failures map[string]int) [][]string {
	times := map[string]int{}
	for reason, n := range failures {
		reason = strings.TrimPrefix(reason, "Unknown: ") // is what no gRPC status is
		times[portOf.ReplaceAllString(reason, "${1}PORT")] += n
	}
	var rows [][]string
	for _, reason := range slices.Sorted(maps.Keys(times)) {
		rows = append(rows, []string{peer, calls, reason, fmt.Sprint(times[reason])})
	}
	return rows
}

var portOf = regexp.MustCompile(`(127\.0\.0\.1:)\d+`)
