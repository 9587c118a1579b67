package metrics

import "lbctl/internal/accesslog"

// Log is the reader of nginx's access log.
type Log interface{ Stats() accesslog.Stats }

var (
	logSection = newSection("The access log")

	logLines     = logSection.counter("lbctl_accesslog_lines_total", "Lines of nginx's access log that lbctl has counted.")
	logMalformed = logSection.counter("lbctl_accesslog_malformed_total",
		"Lines that lbctl has dropped because they were not complete: nginx was killed or had no memory while it wrote them.")
)

func collectLog(to *text, log Log) {
	if log == nil {
		return
	}
	s := log.Stats()
	to.set(logLines, float64(s.Lines))
	to.set(logMalformed, float64(s.Malformed))
}
