package traffic

import (
	"slices"

	"lbctl/internal/accesslog"
)

// sessionResults are what became of a session: it reached an instance, or why nginx ended it itself.
// The last one is for what is in no other.
var sessionResults = [...]string{
	accesslog.ResultSuccess, accesslog.ReasonClientLeft, accesslog.ReasonDenied, accesslog.ReasonRateLimit, accesslog.ReasonMaxConns,
	accesslog.ReasonNoRoute, accesslog.ReasonNoInstance, accesslog.ReasonUnreachable, accesslog.ReasonClientCertificate,
	accesslog.ReasonBadRequest, accesslog.ReasonInternal,
}

// sessions are numbers of sessions, by index in sessionResults.
type sessions [len(sessionResults)]uint64

// count counts a session. It reports whether the session is an error.
func (s *sessions) count(r *accesslog.Record) (failed bool) {
	reason := r.OwnReason(false)
	if reason == "" {
		s[0]++
		return false
	}
	n := slices.Index(sessionResults[:], reason)
	if n < 0 {
		n = len(s) - 1
	}
	s[n]++
	return r.OwnError >= 500
}

// shown returns the results that occurred.
func (s *sessions) shown() []Result {
	var all []Result
	for n, count := range s {
		if count > 0 {
			all = append(all, Result{sessionResults[n], count})
		}
	}
	return all
}
