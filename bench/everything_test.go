//go:build bench

package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
	"lbctl/internal/otlptest"
	"lbctl/internal/traffic"
)

// scrapeInterval is how often Prometheus asks by default.
const scrapeInterval = 15 * time.Second

// TestEverything measures what lbctl needs with all that it can show turned on: log of requests to
// the standard output, a trace of each request, requests in flight, somebody who scrapes the metrics
// and somebody who watches the status page. First while nothing happens over SPAN (60s), then with
// 1,000 services of ten instances, then while INSTANCES (1000) instances come and go in CHURN (10m).
func TestEverything(t *testing.T) {
	span, churn, instances := duration(t, "SPAN", time.Minute), duration(t, "CHURN", 10*time.Minute), number(t, "INSTANCES", 1000)
	lbtest.Binary(t)
	r := newReport(t, "everything", "What lbctl needs with everything on")
	r.paragraph("`lbctl run` writes a line of JSON for each request, sends all of its spans to an OTLP receiver, counts requests in flight," +
		" is scraped every 15 s, and somebody watches its status page. Memory is the resident set.")

	t.Run("idle", func(t *testing.T) {
		s := newSite(t)
		grpc := &fleet{site: s, name: grpcService, start: startGRPC}
		for range 4 {
			grpc.add(t)
		}
		e := startEverything(t, s.lbs.Addr)
		e.WaitServing(grpcService, len(grpc.running))
		row := func(name string) []string {
			before := ownTime(e.PID())
			time.Sleep(span)
			return []string{name, mebibytes(resident(e.PID())), share(ownTime(e.PID())-before, span)}
		}
		rows := [][]string{row("nobody watches the page")}
		e.watch(t)
		rows = append(rows, row("somebody watches it"))
		r.heading("While nothing changes")
		r.paragraph("One service of four instances, each over %s.", span)
		r.table([]string{"", "memory", "of a core"}, rows)
		grpc.disband(t)
	})

	consul := consultest.StartCluster(t, 1)
	agent := consul.StartClient()
	services := newCatalog(t, consul.Servers[0].Client())
	t.Run("churn", func(t *testing.T) {
		services.grow(t, 10)
		e := startEverything(t, agent.Addr)
		e.watch(t)
		e.WaitServing(serviceName(9), instancesEach)
		rows := [][]string{e.row("before")}
		e.callAll(t, services, 3)
		rows = append(rows, e.row("with calls"))
		rows = append(rows, e.churn(t, services, instances, churn))
		begin := time.Now()
		for time.Since(begin) < traffic.DefaultLinger+30*time.Second {
			e.callAll(t, services, 1)
			rest()
		}
		rows = append(rows, e.row(fmt.Sprintf("%s after the last one went", time.Since(begin).Round(time.Second))))
		r.heading("While instances come and go")
		r.paragraph("Ten services of %d instances, with calls to each all the time. %d more instances come and go in %s, at different addresses.", instancesEach, instances, churn)
		r.table([]string{"", "series", "memory", "a scrape"}, rows)
	})

	t.Run("1,000 services", func(t *testing.T) {
		services.grow(t, 1000)
		e := startEverything(t, agent.Addr)
		e.watch(t)
		e.WaitServing(serviceName(999), instancesEach)
		rows := [][]string{e.row("before any call")}
		e.callAll(t, services, 30)
		rows = append(rows, e.row("30 calls to each service"))
		for range 9 {
			e.scrape()
		}
		rows = append(rows, e.row("after ten scrapes"))
		before := ownTime(e.PID())
		time.Sleep(span)
		rows = append(rows, e.row("a while later"))
		r.heading("1,000 services of ten instances")
		r.paragraph("lbctl used %s over %s without calls.", share(ownTime(e.PID())-before, span)+" of a core", span)
		r.table([]string{"", "series", "memory", "a scrape"}, rows)
	})
	r.done()
}

// everything is a balancer with everything on, and those who look at it.
type everything struct {
	*lbtest.Balancer
	admin string
}

func startEverything(t *testing.T, consul string) *everything {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(nginxtest.FreePort(t)))
	e := &everything{admin: "http://" + address, Balancer: lbtest.Start(t, lbtest.Options{Consul: consul, Nginx: nginx(t), Args: []string{
		"--admin", address, "--request-log", "stdout", "--otlp-endpoint", otlptest.Start(t).URL, "--trace-sample", "1", "--requests-in-flight", "on", "--open-files", "65536",
	}})}
	background(t, func(ctx context.Context) {
		e.scrape()
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(2 * scrapeInterval)): // not in step with lbctl
		}
	})
	return e
}

// watch follows the feed of the status page.
func (e *everything) watch(t *testing.T) {
	t.Helper()
	background(t, func(ctx context.Context) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.admin+"/v1/events", nil)
		if err != nil {
			return
		}
		if answer, err := http.DefaultTransport.RoundTrip(request); err == nil {
			_, _ = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
	})
}

// background calls a function again and again until the test ends.
func background(t *testing.T, call func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			call(ctx)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

// scrape asks for the metrics as Prometheus does, and returns the number of series and how long it took.
func (e *everything) scrape() (series int, took time.Duration) {
	begin := time.Now()
	answer, err := http.Get(e.admin + "/metrics") // compressed
	if err != nil {
		return 0, 0
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	took = time.Since(begin)
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(text) {
		if line[0] != '#' {
			series++
		}
	}
	return series, took
}

// row is what lbctl needs now: with the longest of three scrapes.
func (e *everything) row(name string) []string {
	series, longest := 0, time.Duration(0)
	for range 3 {
		n, took := e.scrape()
		series, longest = n, max(longest, took)
	}
	return []string{name, fmt.Sprint(series), mebibytes(resident(e.PID())), fmt.Sprintf("%.3f s", longest.Seconds())}
}

// callAll calls each service so often, and waits until all of that is counted.
func (e *everything) callAll(t *testing.T, services *catalog, times int) {
	t.Helper()
	counted := func() (n int) {
		m, err := e.Metrics()
		require.NoError(t, err)
		for _, series := range m.Series("lbctl_requests_total") {
			n += int(series.Counter.GetValue())
		}
		return n
	}
	want := counted() + times*services.services
	for n := range services.services {
		caller := services.dial(t, e.GRPC, n)
		for range times {
			_, err := caller.Call(t.Context())
			require.NoError(t, err)
		}
		caller.Close()
	}
	e.Eventually("all calls are counted", func() error {
		if n := counted(); n < want {
			return fmt.Errorf("%d are, of %d", n, want)
		}
		return nil
	})
}

// churn lets instances come and go, and returns the row with the most memory.
func (e *everything) churn(t *testing.T, services *catalog, instances int, span time.Duration) []string {
	t.Helper()
	const alive = 20
	client := services.consul.Catalog()
	register := func(n int) {
		of := services.instance(n%10, 0)
		of.ID, of.Address = fmt.Sprintf("come-and-go-%d", n), fmt.Sprintf("127.200.%d.%d", n/250, n%250+1)
		_, err := client.Register(&api.CatalogRegistration{Node: node(instancesEach), Address: "127.0.0.1", SkipNodeUpdate: true, Service: &of}, nil)
		require.NoError(t, err)
	}
	deregister := func(n int) {
		_, err := client.Deregister(&api.CatalogDeregistration{Node: node(instancesEach), ServiceID: fmt.Sprintf("come-and-go-%d", n)}, nil)
		require.NoError(t, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { // the new ones are called too
		conns := make([]lbtest.Caller, 10)
		for n := range conns {
			conns[n] = services.dial(t, e.GRPC, n)
			defer conns[n].Close()
		}
		for n := 0; ctx.Err() == nil; n++ {
			_, _ = conns[n%10].Call(ctx)
			time.Sleep(rand.N(10 * time.Millisecond))
		}
	})
	var most []string
	peak, begin := 0.0, time.Now()
	for n := range instances + alive {
		if n < instances {
			register(n)
		}
		if n >= alive {
			deregister(n - alive)
		}
		if n%50 == 0 {
			if now := resident(e.PID()); now > peak {
				peak, most = now, e.row("the most, while they come and go")
			}
		}
		time.Sleep(time.Until(begin.Add(span * time.Duration(n+1) / time.Duration(instances+alive))))
	}
	stop()
	done.Wait()
	return most
}
