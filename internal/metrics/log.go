package metrics

import "lbctl/internal/accesslog"

// Log is the reader of nginx's access log.
type Log interface{ Stats() accesslog.Stats }

var (
	logSection = newSection("The access log")

	logLines     = logSection.counter("lbctl_accesslog_lines_total", "Lines of nginx's access log that lbctl has counted.")
	logMalformed = logSection.counter("lbctl_accesslog_malformed_total",
		"Lines that lbctl has dropped because they were not complete: nginx was killed or had no memory while it wrote them.")
	logLost = logSection.counter("lbctl_accesslog_lost_total",
		"Requests that nginx has counted and that have no line, because the log was full or nginx was killed. It is some seconds late. If nginx is killed, it does not know of what ended after lbctl had last asked nginx: in the last 0.1 s while there are requests, in the last second while there were none. If a worker is killed, it does not know of its requests in flight.")
	logLag = logSection.gauge("lbctl_accesslog_lag_seconds",
		"How long before lbctl read the newest line its request had ended: at most some 0.4 s while lbctl keeps up.")
	logUnread = logSection.gauge("lbctl_accesslog_unread_bytes", "What nginx had written and lbctl had not read after the last reading.")
	logSize   = logSection.gauge("lbctl_accesslog_size_bytes", "What nginx can write that lbctl does not read: then it drops lines.")
)

func collectLog(to *text, log Log) {
	if log == nil {
		return
	}
	s := log.Stats()
	to.set(logLines, float64(s.Lines))
	to.set(logMalformed, float64(s.Malformed))
	to.set(logLost, float64(s.Lost))
	to.set(logLag, s.Lag.Seconds())
	to.set(logUnread, float64(s.Unread))
	to.set(logSize, float64(s.Size))
}
