package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"lbctl/internal/measure"
)

// family is a metric with all its series.
type family struct {
	name   string
	kind   kind
	help   string // a sentence for people, also in docs/metrics.md
	labels []label
	desc   *prometheus.Desc
}

// kind is the type of a metric, as Prometheus names it.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// label is a label of a metric.
type label struct {
	name string
	// values are all values that there are, separated by "|", with one at the end if the label
	// can be empty; or a description of them in parentheses.
	values string
}

// service is the label that most metrics have.
var service = label{"service", "(name in Consul)"}

// section is a group of metrics with a heading in docs/metrics.md.
type section struct {
	title    string
	families []*family
}

func newSection(title string) *section { return &section{title: title} }

// add makes a metric of the section.
func (s *section) add(k kind, name, help string, labels ...label) *family {
	names := make([]string, len(labels))
	for n, l := range labels {
		names[n] = l.name
	}
	f := &family{name: name, kind: k, help: help, labels: labels, desc: prometheus.NewDesc(name, help, names, nil)}
	s.families = append(s.families, f)
	return f
}

func (s *section) counter(name, help string, labels ...label) *family {
	return s.add(counter, name, help, labels...)
}

func (s *section) gauge(name, help string, labels ...label) *family {
	return s.add(gauge, name, help, labels...)
}

func (s *section) histogram(name, help string, labels ...label) *family {
	return s.add(histogram, name, help, labels...)
}

// oneOf returns the text of a label's values.
func oneOf[T ~string](values []T) string {
	words := make([]string, len(values))
	for n, v := range values {
		words[n] = string(v)
	}
	return strings.Join(words, "|")
}

// series takes the series of a scrape.
type series chan<- prometheus.Metric

// set adds a series of a counter or a gauge. The values are those of the labels, in order.
func (to series) set(f *family, value float64, labels ...string) {
	valueType := prometheus.GaugeValue
	if f.kind == counter {
		valueType = prometheus.CounterValue
	}
	to.add(f, labels, func(labels []string) (prometheus.Metric, error) {
		return prometheus.NewConstMetric(f.desc, valueType, value, labels...)
	})
}

// observed adds a series of a histogram. counts has the number of observations in each bucket,
// and in one more.
func (to series) observed(f *family, bounds []float64, counts []uint64, sum float64, labels ...string) {
	buckets, total := make(map[float64]uint64, len(bounds)), uint64(0)
	for n, c := range counts {
		total += c
		if n < len(bounds) {
			buckets[bounds[n]] = total
		}
	}
	to.add(f, labels, func(labels []string) (prometheus.Metric, error) {
		return prometheus.NewConstHistogram(f.desc, total, sum, buckets, labels...)
	})
}

// durations is observed for what package measure counts.
func (to series) durations(f *family, h measure.Histogram, labels ...string) {
	to.observed(f, measure.Bounds, h.Counts, h.Sum.Seconds(), labels...)
}

// add adds a series. A label can have text from others that is not UTF-8, which Prometheus
// refuses.
func (to series) add(f *family, labels []string, made func(labels []string) (prometheus.Metric, error)) {
	for n, l := range labels {
		labels[n] = strings.ToValidUTF8(l, "\uFFFD")
	}
	m, err := made(labels)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	to <- m
}

// truth returns 1 for true.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
