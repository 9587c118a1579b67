package metrics

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
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

	asked, answers chan struct{} // of Status; nil: it answers at once
}

func (f *fakes) Status(context.Context) controller.Status {
	if f.asked != nil {
		f.asked <- struct{}{}
		<-f.answers
	}
	return f.status
}

func (f *fakes) Counts() controller.Counts {
	return controller.Counts{Convergence: f.Convergence(), ReloadDuration: f.Convergence()}
}

func (f *fakes) Convergence() measure.Histogram                { return new(measure.Durations).Histogram() }
func (f *fakes) Entries() []endpoints.Entry                    { return f.entries }
func (f *fakes) Ages(time.Time) map[string]time.Duration       { return nil }
func (f *fakes) Ejected() map[string]map[endpoints.Ejector]int { return nil }
func (f *fakes) Memory() (int64, error)                        { return 1, nil }
func (f *fakes) Stats() accesslog.Stats                        { return accesslog.Stats{} }
func (f *fakes) Services() []traffic.Service                   { return f.services }
func (f *fakes) Unrouted() []traffic.Requests                  { return nil }
func (f *fakes) UnroutedSessions() []traffic.Result            { return nil }
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

// parse parses the text format, which also finds a metric whose series don't follow each other.
func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err, text)
	return families
}

func TestTheMetricsAreConsistent(t *testing.T) {
	text := scrape(New(newFakes(2, 3).options()), false).Body.String()
	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		series, _, _ := strings.Cut(line, " ")
		if series == "#" {
			series = line
		}
		assert.False(t, lines[series], "%s is there twice", series)
		lines[series] = true
	}
	families := parse(t, text)
	var ours []*dto.MetricFamily
	for name, f := range families {
		if strings.HasPrefix(name, "lbctl_") {
			ours = append(ours, f)
		}
	}
	assert.Greater(t, len(ours), 30)
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)

	h := families["lbctl_request_duration_seconds"].Metric[0].Histogram
	assert.Equal(t, uint64(105), h.GetSampleCount())
	assert.Equal(t, 123.0, h.GetSampleSum())
	require.Len(t, h.Bucket, len(traffic.Buckets)+1)
	assert.Equal(t, uint64(0+1+2), h.Bucket[2].GetCumulativeCount(), "buckets are cumulative")
	assert.Equal(t, .005, h.Bucket[2].GetUpperBound())
}

// A service in quarantine that never had a good state has no protocol.
func TestServedServices(t *testing.T) {
	f := newFakes(2, 3)
	f.entries[1].Protocol, f.entries[1].State, f.entries[1].Refused = "", endpoints.Quarantined, true
	text := scrape(New(f.options()), false).Body.String()
	for series, value := range map[string]int{
		`lbctl_service_served{service="service-0000"}`:                    1,
		`lbctl_service_served{service="service-0001"}`:                    0,
		`lbctl_instances{service="service-0000",state="in-rotation"}`:     3,
		`lbctl_instances{service="service-0001",state="in-rotation"}`:     0,
		`lbctl_instances{service="service-0001",state="registered"}`:      3,
		`lbctl_service_state{service="service-0001",state="quarantined"}`: 1,
	} {
		assert.Contains(t, text, fmt.Sprintf("\n%s %d\n", series, value))
	}
}

func TestTextOfOthersInLabels(t *testing.T) {
	f := newFakes(1, 1)
	f.services[0].Instances[0].Version = "v\xff1 \"quoted\"\\\n"
	answer := scrape(New(f.options()), false)
	assert.Equal(t, http.StatusOK, answer.Code)
	assert.Equal(t, "text/plain; version=0.0.4; charset=utf-8", answer.Header().Get("Content-Type"))
	var versions []string
	for _, l := range parse(t, answer.Body.String())["lbctl_upstream_requests_total"].Metric[0].Label {
		if l.GetName() == "version" {
			versions = append(versions, l.GetValue())
		}
	}
	assert.Equal(t, []string{"v\uFFFD1 \"quoted\"\\\n"}, versions)
	assert.Contains(t, answer.Body.String(), "\nlbctl_nginx_up 0\n")
	assert.Contains(t, answer.Body.String(), "\nlbctl_traces_spans_dropped_total 42\n")
	assert.Contains(t, answer.Body.String(), "\nlbctl_traces_spans_exported_total 4711\n")
}

func TestCompression(t *testing.T) {
	handler := New(newFakes(1, 1).options())
	for accepted, want := range map[string]string{"": "", "gzip": "gzip", "deflate, gzip;q=0.5": "gzip", "gzip;q=0": "", "identity": ""} {
		request, answer := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		request.Header.Set("Accept-Encoding", accepted)
		handler.ServeHTTP(answer, request)
		assert.Equal(t, want, answer.Header().Get("Content-Encoding"), accepted)
	}
	unpacked, err := gzip.NewReader(scrape(handler, true).Body)
	require.NoError(t, err)
	text, err := io.ReadAll(unpacked)
	require.NoError(t, err)
	assert.Contains(t, parse(t, string(text)), "lbctl_nginx_up")
}

func TestScrapesAreBounded(t *testing.T) {
	f := newFakes(1, 1)
	f.asked, f.answers = make(chan struct{}), make(chan struct{})
	handler := New(f.options())
	var running sync.WaitGroup
	for range maxScrapes {
		running.Go(func() { assert.Equal(t, http.StatusOK, scrape(handler, false).Code) })
		<-f.asked
	}
	assert.Equal(t, http.StatusServiceUnavailable, scrape(handler, false).Code)
	close(f.answers)
	running.Wait()
	f.asked = nil
	assert.Equal(t, http.StatusOK, scrape(handler, false).Code)
}

func TestOptionalPartsHaveNoSeries(t *testing.T) {
	opts := newFakes(1, 1).options()
	opts.Traffic, opts.Log, opts.Deliveries, opts.Traces = nil, nil, nil, nil
	text := scrape(New(opts), false).Body.String()
	for _, gone := range []string{"lbctl_request", "lbctl_upstream", "lbctl_accesslog", "lbctl_traces", `delivery="dns"`} {
		assert.NotContains(t, text, "\n"+gone)
	}
	assert.Contains(t, text, `lbctl_build_info{version="1.2.3",goversion="go1.`)
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
