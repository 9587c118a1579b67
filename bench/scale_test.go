//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
)

// readsSize is the number of services with which ways to read Consul are compared, and services
// with a policy each with those without.
const readsSize = 1000

// TestScale measures lbctl with SIZES services (10,100,1000) of ten instances:
// the time to the first configuration, the time until a change is served, ROUNDS times
// (10), and the cost of one change a second over SPAN (30s).
func TestScale(t *testing.T) {
	rounds, span := number(t, "ROUNDS", 10), duration(t, "SPAN", 30*time.Second)
	cluster := consultest.StartCluster(t, 1)
	agents := []scaleAgent{
		{"blocking", cluster.StartClient()},
		{"streaming", cluster.StartClient(consultest.Streaming())},
	}
	services := newCatalog(t, cluster.Servers[0].Client())
	lbtest.Binary(t) // build it now, not during the first start

	var points, reads, policies []*point
	for _, size := range sizes(t) {
		services.grow(t, size)
		for _, m := range modes {
			for _, agent := range agents {
				if agent.reads == "streaming" && size != readsSize {
					continue
				}
				name := fmt.Sprintf("%d services, %s, %s", size, m.name, agent.reads)
				t.Run(name, func(t *testing.T) {
					p := &point{mode: m.name, size: size, reads: agent.reads}
					p.measure(t, services, agent.server, m.args, rounds, span)
					if agent.reads == "blocking" {
						points = append(points, p)
					}
					if size == readsSize {
						reads = append(reads, p)
					}
				})
			}
			if size != readsSize {
				continue
			}
			services.setPolicies(t)
			t.Run(fmt.Sprintf("%d services with a policy each, %s", size, m.name), func(t *testing.T) {
				p := &point{mode: m.name + ", a policy each", size: size}
				p.measure(t, services, agents[0].server, m.args, rounds, span)
				policies = append(policies, points[len(points)-1], p)
			})
			services.removePolicies(t)
		}
	}

	r := newReport(t, "scale", "How it grows with the number of services")
	r.paragraph("gRPC services of %d instances, each service with a host name of its own. They are registered in the catalog of"+
		" one Consul server by transactions, without agents and checks of their own; lbctl asks a client agent. One server"+
		" process listens for all instances, each at a loopback address of its own.", instancesEach)
	r.paragraph("*First configuration*: from lbctl's start with nothing on disk, over nginx's start, until the last service answers"+
		" through nginx; *settled*: until lbctl says that all is as Consul says. *Change*: from Consul's acceptance of an eleventh instance of some service until it answers, with one"+
		" caller who pauses %s; %d changes. Processor time and queries are those of %s with one change a second: an eleventh"+
		" instance comes or goes; `nginx -t` is what lbctl has nginx test configurations with. lbctl's and the agent's memory is the resident set, nginx's is all processes' with shared pages shared"+
		" out. Queries are those that the agent has answered, over HTTP.", scalePause, rounds, span)
	r.table(scaleHead, scaleRows(points, func(p *point) string { return p.mode }))
	r.paragraph("![How it grows](scale.svg)")
	if len(reads) > 0 {
		r.heading("Ways to read Consul")
		r.paragraph("With %d services. Blocking: `use_streaming_backend = false` at the agent, which asks the leader."+
			" Streaming: Consul's default, the agent keeps what it is asked for by a stream from a server.", readsSize)
		r.table(scaleHead, scaleRows(reads, func(p *point) string { return p.mode + ", " + p.reads }))
	}
	if len(policies) > 0 {
		r.heading("A policy for each service")
		r.paragraph("With %d services. The document of each in Consul's KV store is like `%s`.", readsSize, benchPolicy(0))
		r.table(scaleHead, scaleRows(policies, func(p *point) string { return p.mode }))
	}
	if recording() {
		r.keep("scale.svg", scalePlot(t, points))
	}
	r.done()
}

type scaleAgent struct {
	reads  string
	server *consultest.Server
}

// sizes are the numbers of services to measure with, in ascending order.
func sizes(t *testing.T) []int {
	t.Helper()
	given := os.Getenv("SIZES")
	if given == "" {
		return []int{10, 100, 1000}
	}
	var all []int
	for text := range strings.SplitSeq(given, ",") {
		n, err := strconv.Atoi(text)
		require.NoError(t, err, "SIZES=%s: want numbers separated by commas", given)
		all = append(all, n)
	}
	return all
}

// scalePause is the pause between calls that wait for a change.
const scalePause = time.Millisecond

func (p *point) measure(t *testing.T, services *catalog, agent *consultest.Server, args []string, rounds int, span time.Duration) {
	start := time.Now()
	b := lbtest.Start(t, lbtest.Options{Consul: agent.Addr, Nginx: nginx(t), Args: args})
	awaitAnswer(t, services, b, p.size-1, "")
	p.first = time.Since(start)
	b.Eventually("lbctl has nothing left to do", func() error {
		status, err := b.Status()
		if err != nil {
			return err
		}
		if status.State != controller.Serving || status.Instances != p.size*instancesEach {
			return fmt.Errorf("%d instances: %s", status.Instances, status.Summary)
		}
		return nil
	})
	p.settled = time.Since(start)

	for range rounds {
		rest()
		i := rand.IntN(p.size)
		address := services.add(t, i)
		accepted := time.Now()
		awaitAnswer(t, services, b, i, address)
		p.changes = append(p.changes, time.Since(accepted))
		rest()
		services.remove(t, i)
	}
	rest()

	before, counted := usageOf(b, agent), map[string]int{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	extra := -1 // the service that has an eleventh instance
	start = time.Now()
	for time.Since(start) < span {
		if extra < 0 {
			extra = rand.IntN(p.size)
			services.add(t, extra)
		} else {
			services.remove(t, extra)
			extra = -1
		}
		<-tick.C
		interval, n := requests(t, agent)
		counted[interval] = n
	}
	p.span, p.cpu = time.Since(start), usageOf(b, agent).since(before)
	for _, n := range counted {
		p.queries += float64(n) / metricsInterval.Seconds() / float64(len(counted))
	}
	if extra >= 0 {
		services.remove(t, extra)
	}
	p.lbctlMiB, p.nginxMiB, p.agentMiB = resident(b.PID()), proportional(b.Nginx().PID()), resident(agent.PID())
}

// awaitAnswer calls service i until the instance at address answers. With address "",
// any instance will do.
func awaitAnswer(t *testing.T, services *catalog, b *lbtest.Balancer, i int, address string) {
	t.Helper()
	caller := services.dial(t, b.GRPC, i)
	defer caller.Close()
	ctx, cancel := context.WithTimeout(context.Background(), lbtest.Patience)
	defer cancel()
	for {
		name, err := caller.Call(ctx)
		if err == nil && (name == address || address == "") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("wait until %s answers at %q: not within %s: it is %q that answers: %v", serviceName(i), address, lbtest.Patience, name, err)
		}
		time.Sleep(scalePause)
	}
}

// metricsInterval is the time over which an agent sums up its counts.
const metricsInterval = 10 * time.Second

// requests is how many requests an agent has answered in the last complete interval,
// without those for its metrics.
func requests(t *testing.T, agent *consultest.Server) (interval string, n int) {
	t.Helper()
	response, err := http.Get("http://" + agent.Addr + "/v1/agent/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	var metrics struct {
		Timestamp string
		Samples   []struct {
			Name   string
			Count  int
			Labels map[string]string
		}
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&metrics))
	for _, sample := range metrics.Samples {
		if sample.Name == "consul.api.http" && sample.Labels["path"] != "v1_agent_metrics" {
			n += sample.Count
		}
	}
	return metrics.Timestamp, n
}

var scaleHead = []string{"", "services", "first configuration", "settled", "change, median", "99th percentile",
	"lbctl", "CPU", "nginx -t", "nginx", "CPU", "agent", "CPU", "queries/s"}

func scaleRows(points []*point, name func(*point) string) [][]string {
	var rows [][]string
	for _, p := range points {
		rows = append(rows, []string{
			name(p), fmt.Sprint(p.size), seconds(p.first), seconds(p.settled), seconds(median(p.changes)), seconds(quantile(p.changes, 0.99)),
			mebibytes(p.lbctlMiB), share(p.cpu.lbctl, p.span), share(p.cpu.test, p.span),
			mebibytes(p.nginxMiB), share(p.cpu.nginx, p.span),
			mebibytes(p.agentMiB), share(p.cpu.agent, p.span),
			fmt.Sprintf("%.1f", p.queries),
		})
	}
	return rows
}

// restPause is the pause before each change, so that no change waits for the one before.
const restPause = 1500 * time.Millisecond

// rest waits for a random time, so that changes are not in step with any timer.
func rest() { time.Sleep(restPause + rand.N(time.Second)) }
