package metrics

// Traces sends the spans of requests.
type Traces interface {
	// Counts returns how many spans the receiver has got, and how many were dropped.
	Counts() (exported, dropped uint64)
}

var (
	tracesSection = newSection("Traces")

	spansExported = tracesSection.counter("lbctl_traces_spans_exported_total", "Spans of requests that the receiver has taken. Absent, as the next one, without tracing.")
	spansDropped  = tracesSection.counter("lbctl_traces_spans_dropped_total", "Spans of requests that are lost, because the receiver was away, too slow, or did not take them.")
)

func collectTraces(to *text, traces Traces) {
	if traces == nil {
		return
	}
	exported, dropped := traces.Counts()
	to.set(spansExported, float64(exported))
	to.set(spansDropped, float64(dropped))
}
