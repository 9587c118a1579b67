package metrics

import (
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lbctl/internal/measure"
)

// text writes metrics in Prometheus's text format. With a thousand services there are some 35,000
// series: a prometheus.Registry would have all of them in memory at a time, in structures of some
// hundred bytes each, and would take five times as long.
//
// All series of a metric must follow each other.
type text struct {
	to      io.Writer
	err     error   // the first error of to
	current *family // the last one written
	line    []byte
	bounds  []string  // the texts of the bounds of the last histogram
	of      []float64 // these bounds
}

// set writes a series of a counter or a gauge. The values are those of the labels, in order.
func (t *text) set(f *family, value float64, labels ...string) {
	t.begin(f)
	t.sample(f, "", value, labels, "")
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
	t.begin(f)
	if len(t.of) != len(bounds) || &t.of[0] != &bounds[0] {
		t.of, t.bounds = bounds, t.bounds[:0]
		for _, b := range bounds {
			t.bounds = append(t.bounds, string(appendNumber(nil, b)))
		}
	}
	total := uint64(0)
	for n, bound := range t.bounds {
		total += counts[n]
		t.sample(f, "_bucket", float64(total), labels, bound)
	}
	total += counts[len(bounds)]
	t.sample(f, "_bucket", float64(total), labels, "+Inf")
	t.sample(f, "_sum", sum, labels, "")
	t.sample(f, "_count", float64(total), labels, "")
}

// durations is observed for what package measure counts.
func (t *text) durations(f *family, h measure.Histogram, labels ...string) {
	t.observed(f, measure.Bounds, h.Counts, h.Sum.Seconds(), labels...)
}

// begin writes what the metric is, before its first series.
func (t *text) begin(f *family) {
	if t.current == f {
		return
	}
	t.current = f
	t.line = append(t.line[:0], "# HELP "...)
	t.line = append(append(append(t.line, f.name...), ' '), strings.ReplaceAll(f.help, `\`, `\\`)...)
	t.line = append(append(t.line, "\n# TYPE "...), f.name...)
	t.line = append(append(append(t.line, ' '), f.kind...), '\n')
	t.write()
}

// sample writes a line. le is the upper bound of a bucket; "" for other samples.
func (t *text) sample(f *family, suffix string, value float64, labels []string, le string) {
	t.line = append(append(t.line[:0], f.name...), suffix...)
	before := byte('{')
	for n, l := range f.labels {
		t.line = append(append(append(t.line, before), l.name...), `="`...)
		t.line = append(appendEscaped(t.line, labels[n]), '"')
		before = ','
	}
	if le != "" {
		t.line = append(append(append(append(t.line, before), `le="`...), le...), '"')
		before = ','
	}
	if before == ',' {
		t.line = append(t.line, '}')
	}
	t.line = append(appendNumber(append(t.line, ' '), value), '\n')
	t.write()
}

func (t *text) write() {
	if t.err == nil {
		_, t.err = t.to.Write(t.line)
	}
}

// appendNumber appends a number, without an exponent if it is an integer.
func appendNumber(b []byte, value float64) []byte {
	if value == math.Trunc(value) && math.Abs(value) < 1<<53 {
		return strconv.AppendInt(b, int64(value), 10)
	}
	return strconv.AppendFloat(b, value, 'g', -1, 64)
}

// appendEscaped appends the value of a label. It can be text from others that is not UTF-8, which
// Prometheus refuses.
func appendEscaped(b []byte, value string) []byte {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	for n := range len(value) {
		switch c := value[n]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}
