package metrics

import (
	"io"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"lbctl/internal/measure"
)

// text writes metrics in Prometheus's text format, one after the other. With a thousand services
// there are some 35,000 series: a prometheus.Registry would have all of them in memory at a time,
// and would take three times as long.
//
// All series of a metric must follow each other, and flush must follow the last one.
type text struct {
	to     io.Writer
	err    error   // the first error of to
	family *family // of series
	series []*dto.Metric
}

// set writes a series of a counter or a gauge. The values are those of the labels, in order.
func (t *text) set(f *family, value float64, labels ...string) {
	m := t.add(f, labels)
	switch f.kind {
	case counter:
		m.Counter = &dto.Counter{Value: &value}
	default:
		m.Gauge = &dto.Gauge{Value: &value}
	}
}

// truth is set for what is true or false.
func (t *text) truth(f *family, value bool, labels ...string) {
	if value {
		t.set(f, 1, labels...)
	} else {
		t.set(f, 0, labels...)
	}
}

// time is set for a time, as seconds of Unix time. The zero time is no series.
func (t *text) time(f *family, at time.Time, labels ...string) {
	if !at.IsZero() {
		t.set(f, float64(at.UnixMilli())/1000, labels...)
	}
}

// observed writes a series of a histogram. counts has the number of observations in each bucket,
// those of smaller buckets not included, and in one more.
func (t *text) observed(f *family, bounds []float64, counts []uint64, sum float64, labels ...string) {
	buckets := make([]dto.Bucket, len(bounds))
	h := &dto.Histogram{SampleSum: &sum, Bucket: make([]*dto.Bucket, len(bounds))}
	totals := make([]uint64, len(counts))
	total := uint64(0)
	for n := range counts {
		total += counts[n]
		totals[n] = total
	}
	for n := range bounds {
		buckets[n].UpperBound, buckets[n].CumulativeCount = &bounds[n], &totals[n]
		h.Bucket[n] = &buckets[n]
	}
	h.SampleCount = &totals[len(bounds)]
	t.add(f, labels).Histogram = h
}

// durations is observed for what package measure counts.
func (t *text) durations(f *family, h measure.Histogram, labels ...string) {
	t.observed(f, measure.Bounds, h.Counts, h.Sum.Seconds(), labels...)
}

// add adds a series without a value.
func (t *text) add(f *family, values []string) *dto.Metric {
	if t.family != f {
		t.flush()
		t.family = f
	}
	m := &dto.Metric{Label: make([]*dto.LabelPair, len(f.labels))}
	pairs, names := make([]dto.LabelPair, len(f.labels)), make([]string, len(f.labels))
	for n := range f.labels {
		// It can be text from others that is not UTF-8, which Prometheus refuses.
		names[n] = strings.ToValidUTF8(values[n], "\uFFFD")
		pairs[n].Name, pairs[n].Value = &f.labels[n].name, &names[n]
		m.Label[n] = &pairs[n]
	}
	t.series = append(t.series, m)
	return m
}

// flush writes the series of the last metric.
func (t *text) flush() {
	if len(t.series) > 0 && t.err == nil {
		_, t.err = expfmt.MetricFamilyToText(t.to, &dto.MetricFamily{Name: &t.family.name, Help: &t.family.help, Type: t.family.kind.Enum(), Metric: t.series})
	}
	clear(t.series)
	t.series = t.series[:0]
}
