package metrics

import (
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// family is a metric with all its series.
type family struct {
	name   string
	kind   kind
	help   string // a sentence for people, also in docs/metrics.md
	labels []label
}

// kind is the type of a metric.
type kind = dto.MetricType

const (
	counter   = dto.MetricType_COUNTER
	gauge     = dto.MetricType_GAUGE
	histogram = dto.MetricType_HISTOGRAM
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
	f := &family{name: name, kind: k, help: help, labels: labels}
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
