package metrics

import "lbctl/internal/requestlog"

// RequestLog is the log of requests that lbctl writes to its standard output.
type RequestLog interface{ Stats() requestlog.Stats }

var (
	requestLogSection = newSection("The log of requests, with --request-log stdout")

	requestLogLines   = requestLogSection.counter("lbctl_request_log_lines_total", "Lines that lbctl has written to its standard output.")
	requestLogSampled = requestLogSection.counter("lbctl_request_log_sampled_total", "Requests that it has not written because of --request-log-sample.")
	requestLogDropped = requestLogSection.counter("lbctl_request_log_dropped_total", "Lines that it could not write because its standard output was too slow or broken.")
)

func collectRequestLog(to *text, log RequestLog) {
	if log == nil {
		return
	}
	s := log.Stats()
	to.set(requestLogLines, float64(s.Written))
	to.set(requestLogSampled, float64(s.Sampled))
	to.set(requestLogDropped, float64(s.Dropped))
}
