//go:build bench

package bench

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
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
		return // half a comparison is not worth a report
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
	var calls []string
	for _, k := range lossKinds {
		calls = append(calls, k.name)
	}
	calls = append(calls, "streams")
	var per, counts, reasons [][]string
	for _, p := range all {
		result := results[p.name]
		if result == nil {
			per = append(per, notRun(p.name, 1+len(calls)))
			counts = append(counts, notRun(p.name, 2+len(calls)))
			continue
		}
		thousand := func(n int) string {
			return strconv.FormatFloat(math.Round(10000*float64(n)/float64(plan.changes))/10, 'f', -1, 64)
		}
		normal := []string{p.name, thousand(result.reloads)}
		exact := []string{p.name, fmt.Sprintf("%d in %.1f s", plan.changes, result.took.Seconds()), fmt.Sprint(result.reloads)}
		for i, name := range calls {
			c := result.calls[i]
			normal = append(normal, thousand(c.Failed()))
			exact = append(exact, fmt.Sprintf("%d of %d", c.Failed(), c.Calls))
			reasons = append(reasons, failureRows(p.name, name, c.Failures)...)
		}
		per, counts = append(per, normal), append(counts, exact)
	}
	r.table(append([]string{"", "reloads"}, calls...), per)
	r.heading("The counts behind it")
	r.table(append([]string{"", "changes", "reloads"}, calls...), counts)
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
	took    time.Duration // from the first change to the last
	reloads int
	calls   []lbtest.Result // in lossKinds' order, and streams
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
	before, start := b.reloads(), time.Now()

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
	result := &losses{took: time.Since(start)}
	leaving.Wait()

	for _, load := range loads {
		result.calls = append(result.calls, load.Stop())
	}
	result.calls = append(result.calls, streams.stop())
	result.reloads = b.reloads() - before
	return result
}

// notRun is the row of a balancer whose program is missing.
func notRun(peer string, figures int) []string {
	row := []string{peer, "not run"}
	for len(row) <= figures {
		row = append(row, "-")
	}
	return row
}

// failureRows returns rows with the errors that callers of one kind got.
func failureRows(peer, calls string, failures map[string]int) [][]string {
	times := map[string]int{}
	for reason, n := range failures {
		reason, _, _ = strings.Cut(reason, "\n")
		reason = strings.TrimPrefix(reason, "Unknown: ") // errors without a gRPC status have this prefix
		times[portOf.ReplaceAllString(reason, "${1}PORT")] += n
	}
	var rows [][]string
	for _, reason := range slices.Sorted(maps.Keys(times)) {
		rows = append(rows, []string{peer, calls, reason, fmt.Sprint(times[reason])})
	}
	return rows
}

var portOf = regexp.MustCompile(`(127\.0\.0\.1:)\d+`)
