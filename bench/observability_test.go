//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestObservability measures what it costs to see each request: nginx's processor time for a call,
// and calls a second, in ROUNDS pairs (12) of SPAN (1s), in which a balancer and one without access
// log take turns. The first row is the one without against itself, which shows how much of a
// difference is chance. Then it lets callers call for LOAD (20s), and compares what they have
// called with what lbctl has counted, and tells what that has cost lbctl.
func TestObservability(t *testing.T) {
	s := newSite(t)
	rounds, span, load := number(t, "ROUNDS", 12), duration(t, "SPAN", time.Second), duration(t, "LOAD", 20*time.Second)
	grpc, web := newFleets(t, s)
	r := newReport(t, "observability", "What it costs to see each request")
	r.paragraph("%d pairs of %s for each row and kind of call, in which %d callers call without pause, as in [throughput](throughput.md); %d instances of each service."+
		" In each pair a balancer and the reference, lbctl without access log, take turns every %s. The processor time is nginx's."+
		" The ratio of calls a second is the median of the pairs' ratios, with what it may be at a confidence of 95 %%; that of processor time is of the sums.",
		rounds, span, throughputCallers, instances, slice)

	off := func(more ...string) []string {
		return append([]string{"--access-log", "off", "--tracing", "off"}, more...)
	}
	unnamed := withoutRequestIDs(t)
	quiet, logging := startOurs(t, s, off()), startOurs(t, s, []string{"--tracing", "off"})
	tracing := startOurs(t, s, []string{"--tracing", "on", "--otlp-endpoint", "http://127.0.0.1:9", "--trace-sample", "0"})
	systems := []*system{
		{name: "no log, against itself", balancer: justNginx{quiet}},
		{name: "the log (as it comes)", balancer: justNginx{logging}},
		{name: "no log, no request ids", balancer: justNginx{startOurs(t, s, off("--templates", unnamed))}},
		{name: "the log, no request ids", balancer: justNginx{startOurs(t, s, []string{"--tracing", "off", "--templates", unnamed})}},
		{name: "the log, trace contexts", balancer: justNginx{tracing}},
		{name: "the log, requests in flight", balancer: justNginx{startOurs(t, s, []string{"--tracing", "off", "--requests-in-flight", "on"})}},
	}
	for _, system := range systems {
		awaitServed(t, s, system.balancer, grpc, web)
	}
	kinds := []kind{grpcUnary, http1}
	compare(t, s, systems, kinds, rounds, span)
	for _, k := range kinds {
		r.table([]string{k.name, "calls/s", "ratio", "nginx's time per call", "ratio", "failed"}, rows(systems, k))
	}

	r.heading("What lbctl counts, and what that costs it")
	r.paragraph("%d callers call for %s. lbctl's processor time is that of a balancer with the log minus that of the one without in the same time.", throughputCallers, load)
	var counts [][]string
	for _, k := range kinds {
		counts = append(counts, count(t, s, logging, quiet, k, load))
	}
	r.table([]string{"", "called", "counted", "lost", "calls/s", "lbctl's time per call", "of a core at 5,000 calls/s"}, counts)
	r.done()
	grpc.disband(t)
	web.disband(t)
}

// withoutRequestIDs returns a directory with a template that lets nginx make no names of requests.
func withoutRequestIDs(t *testing.T) string {
	t.Helper()
	const partial = "partials/accesslog.ctmpl"
	text, err := os.ReadFile(filepath.Join("../templates", partial))
	require.NoError(t, err)
	changed := strings.Replace(string(text), "default $request_id;", `default "-";`, 1)
	require.NotEqual(t, string(text), changed, "the map of request ids is another one")
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "partials"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, partial), []byte(changed), 0o644))
	return dir
}

// count lets callers call a balancer that logs, and returns the row of what it has counted.
func count(t *testing.T, s *site, logging, quiet *own, k kind, span time.Duration) []string {
	t.Helper()
	service := grpcService
	if k.front == httpPlain {
		service = httpService
	}
	sum := func(metric string, labels ...string) (n float64) {
		m, err := logging.Metrics()
		require.NoError(t, err)
		for _, series := range m.Series(metric, labels...) {
			n += series.Counter.GetValue()
		}
		return n
	}
	counted := func() float64 { return sum("lbctl_requests_total", "service", service) }
	before := counted()
	team := newTeam(t, s, justNginx{logging}, k)
	defer team.close()
	used := [2]time.Duration{cpuTime(logging.PID()), cpuTime(quiet.PID())}
	done := team.run(t, span)
	more := cpuTime(logging.PID()) - used[0] - (cpuTime(quiet.PID()) - used[1]) // the lines of the last moment are missing
	called := done.calls + done.failed
	after := 0.0
	logging.Eventually("all lines have been read", func() error {
		if after = counted() - before; int(after) < called {
			return fmt.Errorf("%.0f requests are counted, of %d", after, called)
		}
		return nil
	})
	perCall := float64(more.Microseconds()) / float64(done.calls)
	return []string{
		k.name, fmt.Sprint(called), fmt.Sprintf("%.0f", after), fmt.Sprintf("%.0f", sum("lbctl_accesslog_lost_total")),
		fmt.Sprintf("%.0f", done.rate()), fmt.Sprintf("%.1f µs", perCall), fmt.Sprintf("%.1f %%", 100*5000*perCall/1e6),
	}
}
