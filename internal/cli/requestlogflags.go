package cli

import (
	"fmt"
	"time"

	"lbctl/internal/daemon"
	"lbctl/internal/requestlog"
)

// requestLogFlags defines the flags of the log of requests and control events.
func requestLogFlags(flags *flags, cfg *daemon.Config) {
	opts := &cfg.RequestLog
	choose(flags, &cfg.RequestLogTo, "request-log", "LBCTL_REQUEST_LOG", "WHERE",
		"where to write a line of JSON for each request and each control event: stdout, or off; 'lbctl logs' has the last ones in any case",
		daemon.RequestLogOff, daemon.RequestLogOff, daemon.RequestLogStdout)
	define(flags, &opts.Sample, "request-log-sample", "LBCTL_REQUEST_LOG_SAMPLE", "SHARE",
		"share of the requests to write; those that failed, were tried again or were slow are always written", 1.0, parseShare)
	define(flags, &opts.Slow, "request-log-slow", "LBCTL_REQUEST_LOG_SLOW", "DURATION",
		"time from which on a request is slow for --request-log-sample", requestlog.DefaultSlow, parseDuration(time.Millisecond))
	define(flags, (*mebibytes)(&opts.Memory), "request-log-memory", "LBCTL_REQUEST_LOG_MEMORY", "MIB",
		"memory for the last requests, for 'lbctl logs', in MiB; each has some 3,500 requests", mebibytes(requestlog.DefaultMemory), parseMebibytes)
}

// mebibytes is the value of a flag that is a number of MiB, in bytes.
type mebibytes int

func (m mebibytes) String() string { return fmt.Sprint(int(m) >> 20) }

func parseMebibytes(given string) (mebibytes, error) {
	n, err := parseNumber(1, 4096)(given)
	return mebibytes(n << 20), err
}
