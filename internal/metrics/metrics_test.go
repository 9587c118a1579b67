package metrics

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/accesslog"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/measure"
	"lbctl/internal/nginx"
	"lbctl/internal/traffic"
)

// fakes are the parts of an lbctl with services and instances.
type fakes struct {
	status   controller.Status
	entries  []endpoints.Entry
	services []traffic.Service
}

func (f *fakes) Status(context.Context) controller.Status      { return f.status }
func (f *fakes) Counts() controller.Counts                     { return controller.Counts{} }
func (f *fakes) Convergence() measure.Histogram                { return new(measure.Durations).Histogram() }
func (f *fakes) Entries() []endpoints.Entry                    { return f.entries }
func (f *fakes) Ages(time.Time) map[string]time.Duration       { return nil }
func (f *fakes) Ejected() map[string]map[endpoints.Ejector]int { return nil }
func (f *fakes) Memory() (int64, error)                        { return 1, nil }
func (f *fakes) Stats() accesslog.Stats                        { return accesslog.Stats{} }
func (f *fakes) Services() []traffic.Service                   { return f.services }
func (f *fakes) Unrouted() []traffic.Requests                  { return nil }
func (f *fakes) Connections(context.Context) (nginx.Connections, error) {
	return nginx.Connections{}, nil
}

func (f *fakes) options() Options {
	return Options{Version: "1.2.3", Loop: f, Services: f, Nginx: f, Deliveries: f, Log: f, Traffic: f, Traces: spans{}}
}

type spans struct{}

func (spans) Counts() (exported, dropped uint64) { return 4711, 42 }

// newFakes makes services with instances, each of which has had requests with three results.
func newFakes(services, instances int) *fakes {
	f := &fakes{}
	counts := traffic.Histogram{Counts: make([]uint64, len(traffic.Buckets)+1), Sum: 123}
	for n := range counts.Counts {
		counts.Counts[n] = uint64(n)
	}
	for s := range services {
		e := endpoints.Entry{State: endpoints.Fresh}
		e.Name, e.Protocol, e.Default = fmt.Sprintf("service-%04d", s), endpoints.GRPC, true
		t := traffic.Service{
			Name: e.Name, Protocol: "grpc", Duration: counts,
			Requests: []traffic.Requests{{Route: "*", Code: "2xx", GRPCStatus: "OK", Count: 1}, {Route: "*", Code: "2xx", GRPCStatus: "UNAVAILABLE", Count: 2}},
			Versions: []traffic.Version{{Name: "v1", Duration: counts}},
			Refused:  map[string]uint64{"denied": 1}, Retries: map[string]uint64{"connect": 1},
		}
		for i := range instances {
			instance := endpoints.Instance{ID: fmt.Sprint(i), Node: "node", Address: fmt.Sprintf("10.%d.%d.%d", s>>8, s&255, i), Port: 7777, Status: endpoints.Passing, Weight: 1, Version: "v1"}
			e.Instances = append(e.Instances, instance)
			t.Instances = append(t.Instances, traffic.Instance{Endpoint: instance.HostPort(), Version: "v1", Results: []traffic.Result{
				{Result: "success", Count: uint64(i)}, {Result: "timeout", Count: 2}, {Result: "UNAVAILABLE", Count: 3},
			}})
		}
		f.entries, f.services = append(f.entries, e), append(f.services, t)
	}
	return f
}

// scrape returns the answer of GET /metrics.
func scrape(handler http.Handler, compressed bool) *httptest.ResponseRecorder {
	request, answer := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
	if compressed {
		request.Header.Set("Accept-Encoding", "gzip")
	}
	handler.ServeHTTP(answer, request)
	return answer
}

func TestTheMetricsAreConsistent(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{newFakes(2, 3).options()})
	families, err := registry.Gather()
	require.NoError(t, err)
	assert.NotEmpty(t, families)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestTextThatIsNotUTF8HidesNothing(t *testing.T) {
	f := newFakes(1, 1)
	f.services[0].Instances[0].Version = "v\xff1"
	f.services[0].Instances = append(f.services[0].Instances, f.services[0].Instances[0]) // nor does a series that is there twice
	answer := scrape(New(f.options()), false)
	assert.Equal(t, http.StatusOK, answer.Code)
	assert.Contains(t, answer.Body.String(), "version=\"v\uFFFD1\"")
	assert.Contains(t, answer.Body.String(), "\nlbctl_nginx_up 0\n")
	assert.Contains(t, answer.Body.String(), "\nlbctl_traces_spans_dropped_total 42\n")
	assert.Contains(t, answer.Body.String(), "\nlbctl_traces_spans_exported_total 4711\n")
}

func TestOptionalPartsHaveNoSeries(t *testing.T) {
	opts := newFakes(1, 1).options()
	opts.Traffic, opts.Log, opts.Deliveries, opts.Traces = nil, nil, nil, nil
	text := scrape(New(opts), false).Body.String()
	for _, gone := range []string{"lbctl_request", "lbctl_upstream", "lbctl_accesslog", "lbctl_traces", `delivery="dns"`} {
		assert.NotContains(t, text, "\n"+gone)
	}
	assert.Contains(t, text, `lbctl_build_info{goversion="go1.`)
	assert.NotContains(t, strings.ToLower(text), `delivery="dns"`)
}

// BenchmarkScrape measures a scrape of 1,000 services with 10 instances each, whose requests had
// three results. lbctl uses one processor.
func BenchmarkScrape(b *testing.B) {
	handler := New(newFakes(1000, 10).options())
	for name, compressed := range map[string]bool{"plain": false, "gzip": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var size int
			for b.Loop() {
				size = scrape(handler, compressed).Body.Len()
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
