package policy

import (
	"strconv"
	"time"
)

// Outlier says when the circuit breaker ejects an instance, from the answers that nginx gets.
// The names are Envoy's.
type Outlier struct {
	ConsecutiveErrors  int
	ErrorRate          int // percent
	MinRequests        int
	Interval           Duration
	BaseEjectionTime   Duration
	MaxEjectionTime    Duration
	MaxEjectionPercent int
}

var builtInOutlier = Outlier{
	MinRequests:        20,
	Interval:           Duration(10 * time.Second),
	BaseEjectionTime:   Duration(30 * time.Second),
	MaxEjectionTime:    Duration(5 * time.Minute),
	MaxEjectionPercent: 10,
}

// On reports whether the circuit breaker ejects instances: without a number of errors or a rate
// there is nothing to judge them by.
func (o Outlier) On() bool { return o.ConsecutiveErrors > 0 || o.ErrorRate > 0 }

// WithDefaults returns the values with the built-in ones in the place of those that are not set.
func (o Outlier) WithDefaults() Outlier {
	b := builtInOutlier
	b.ConsecutiveErrors, b.ErrorRate = o.ConsecutiveErrors, o.ErrorRate
	if o.MinRequests > 0 {
		b.MinRequests = o.MinRequests
	}
	if o.Interval > 0 {
		b.Interval = o.Interval
	}
	if o.BaseEjectionTime > 0 {
		b.BaseEjectionTime = o.BaseEjectionTime
	}
	if o.MaxEjectionTime > 0 {
		b.MaxEjectionTime = o.MaxEjectionTime
	}
	if o.MaxEjectionPercent > 0 {
		b.MaxEjectionPercent = o.MaxEjectionPercent
	}
	return b
}

var outlierFields = []Field{
	field("outlier.consecutive-errors", func(p *Policy) *int { return &p.Outlier.ConsecutiveErrors }, wholes(1, 10000), "5",
		"Ejects an instance after so many errors in a row. Errors are statuses of 500 and above except 501; the gRPC statuses UNAVAILABLE, INTERNAL, UNKNOWN and DATA_LOSS; "+
			"and connections that are refused, break before an answer or time out. Each try of a request counts for its instance. Without this field and outlier.error-rate the circuit breaker is off.",
		unit("errors")),
	field("outlier.error-rate", func(p *Policy) *int { return &p.Outlier.ErrorRate }, wholes(1, 100), "50",
		"Ejects an instance when at least this share of its answers within outlier.interval are errors, and it has given outlier.min-requests answers.",
		unit("percent")),
	field("outlier.min-requests", func(p *Policy) *int { return &p.Outlier.MinRequests }, wholes(1, 1000000), "100",
		"How many answers of an instance within outlier.interval outlier.error-rate needs.",
		unit("requests"), defaults(strconv.Itoa(builtInOutlier.MinRequests))),
	field("outlier.interval", func(p *Policy) *Duration { return &p.Outlier.Interval }, durations(time.Second, time.Hour), "30s",
		"The time in which outlier.error-rate counts. Each interval that an instance serves without an ejection makes its next ejection shorter by outlier.base-ejection-time.",
		unit("duration"), defaults(builtInOutlier.Interval.String())),
	field("outlier.base-ejection-time", func(p *Policy) *Duration { return &p.Outlier.BaseEjectionTime }, durations(time.Second, time.Hour), "10s",
		"How long the first ejection lasts. The second one lasts twice as long, and so on. The instance returns with a slow start.",
		unit("duration"), defaults(builtInOutlier.BaseEjectionTime.String())),
	field("outlier.max-ejection-time", func(p *Policy) *Duration { return &p.Outlier.MaxEjectionTime }, durations(time.Second, 24*time.Hour), "10m",
		"How long an ejection lasts at most; at least outlier.base-ejection-time.",
		unit("duration"), defaults(builtInOutlier.MaxEjectionTime.String())),
	field("outlier.max-ejection-percent", func(p *Policy) *int { return &p.Outlier.MaxEjectionPercent }, wholes(1, 100), "30",
		"How much of the service's instances in rotation the circuit breaker ejects at most. It may always eject one, but never all, and with those that probes have ejected never more than --max-ejected of lbctl run.",
		unit("percent"), defaults(strconv.Itoa(builtInOutlier.MaxEjectionPercent))),
}
