package accesslog

import "time"

// sessionVersion is the first field of a session's line. The letter tells it from that of a request.
const sessionVersion = version + "t"

// sessionFields are the fields of a session's line, in order. The variables that begin with $lb_ are
// those of templates/partials/sessionlog.ctmpl.
var sessionFields = [...]field{
	{sessionVersion, func(_ *Record, v []byte) bool { return string(v) == sessionVersion }},
	{"$msec", parseTime},
	{"$session_time", func(r *Record, v []byte) (ok bool) { r.Took, ok = parseSeconds(v); return ok }},
	{"$lb_service", text(func(r *Record) *[]byte { return &r.Service })},
	{"$lb_log_host", text(func(r *Record) *[]byte { return &r.Host })},
	{"$status", func(r *Record, v []byte) bool { return parseStatus(&r.Status, v) }},
	{"$bytes_received", func(r *Record, v []byte) (ok bool) { r.RequestBytes, ok = number(v); return ok }},
	{"$bytes_sent", func(r *Record, v []byte) (ok bool) { r.ResponseBytes, ok = number(v); return ok }},
	{"$remote_addr", text(func(r *Record) *[]byte { return &r.Client })},
	{"$upstream_addr", parseAddresses},
	{"$upstream_connect_time", parseTimes(func(t *Try) *time.Duration { return &t.Connect })},
	{"$upstream_session_time", parseTimes(func(t *Try) *time.Duration { return &t.Took })},
	{"$lb_listener", func(r *Record, v []byte) bool { r.OwnError = r.sessionError(string(v)); return true }},
}

// SessionFormat is Format for the sessions of TCP services.
func SessionFormat() string { return format(sessionFields[:]) }

// parseSession fills the record, which is empty, from a session's line.
func (r *Record) parseSession(line []byte) bool {
	r.TCP = true
	if !r.parseFields(sessionFields[:], line) {
		return false
	}
	r.Completed = r.OwnError == 0 && len(r.Tries) > 0 && r.Tries[len(r.Tries)-1].Connect >= 0
	return true
}

// sessionError returns the status of HTTP that says why nginx ended a session itself; 0: it did not.
// nginx's own status of a session says less. The kind of listener decides what the rest means.
func (r *Record) sessionError(listener string) int {
	switch {
	case r.Status == 503:
		return 429 // there are too many connections
	case r.Status != 500 || len(r.Tries) > 0:
		if r.Status < 400 {
			return 0
		}
		return r.Status
	}
	switch listener { // nginx did not come as far as to choose an instance
	case "shared": // the host that the client names decides about the service
		if len(r.Service) == 0 {
			return 404
		}
		return 403
	case "clients": // nginx wants a certificate of the client
		return 496
	case "tls":
		return 400 // the client does not speak TLS as nginx does
	}
	return r.Status
}

// sessionResult is the result of a try to have a session taken by an instance.
func (r *Record) sessionResult(t *Try, last bool) string {
	switch {
	case t.Connect >= 0:
		return ResultSuccess
	case last && r.OwnError == 0:
		return ResultCancelled
	}
	return ResultConnect
}
