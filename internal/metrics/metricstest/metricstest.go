// Package metricstest reads metrics in tests, and compares them with docs/metrics.md.
package metricstest

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics are metrics by name.
type Metrics map[string]*dto.MetricFamily

// Scrape asks a program for its metrics.
func Scrape(url string) (Metrics, error) { return ScrapeOver(url, http.DefaultTransport) }

// ScrapeOver is Scrape over another transport.
func ScrapeOver(url string, over http.RoundTripper) (Metrics, error) {
	client := http.Client{Transport: over, Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	return families, err
}

// Value returns the value of the only series of a metric with these labels: name, value, name,
// value and so on. The series may have others. For a histogram it is the number of observations.
// ok is false if there is none, or more than one.
func (m Metrics) Value(metric string, labels ...string) (value float64, ok bool) {
	all := m.Series(metric, labels...)
	if len(all) != 1 {
		return 0, false
	}
	switch s := all[0]; {
	case s.Counter != nil:
		return s.Counter.GetValue(), true
	case s.Histogram != nil:
		return float64(s.Histogram.GetSampleCount()), true
	default:
		return s.Gauge.GetValue(), true
	}
}

// Series returns the series of a metric that have these labels, as in Value.
func (m Metrics) Series(metric string, labels ...string) (found []*dto.Metric) {
	family := m[metric]
	if family == nil {
		return nil
	}
	for _, s := range family.Metric {
		fits := true
		for pair := range slices.Chunk(labels, 2) {
			fits = fits && slices.ContainsFunc(s.Label, func(l *dto.LabelPair) bool { return l.GetName() == pair[0] && l.GetValue() == pair[1] })
		}
		if fits {
			found = append(found, s)
		}
	}
	return found
}
