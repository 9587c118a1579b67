// Package accesslog reads what nginx writes about each request and each session of a TCP service.
// nginx appends one line for each to a file in memory, and a [Reader] reads the lines, gives their memory back, and
// replaces the file from time to time, so that it never needs more than [Options.Size].
package accesslog

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
)

// FormatName is the name of the log's formats in nginx's configuration: that of requests in http {},
// and that of sessions in stream {}.
const FormatName = "lbctl"

// version is the first field of a request's line. It must change with fields: after an upgrade, a
// reader finds lines of the former format.
const version = "4"

// field is one field of a line: the text for nginx's log_format, and how its value becomes a
// part of a Record.
type field struct {
	text  string
	parse func(r *Record, value []byte) (ok bool)
}

// fields are the fields of a request's line, in order. The variables that begin with $lb_ are those of
// templates/partials/accesslog.ctmpl and templates/nginx.conf.ctmpl.
var fields = [...]field{
	{version, func(_ *Record, v []byte) bool { return string(v) == version }},
	{"$msec", parseTime},
	{"$request_time", func(r *Record, v []byte) (ok bool) { r.Took, ok = parseSeconds(v); return ok }},
	{"$lb_service", text(func(r *Record) *[]byte { return &r.Service })},
	{"$lb_route", text(func(r *Record) *[]byte { return &r.Route })},
	{"$lb_log_method", text(func(r *Record) *[]byte { return &r.Method })},
	{"$lb_scheme", text(func(r *Record) *[]byte { return &r.Scheme })},
	{"$server_protocol", parseHTTPVersion},
	{"$lb_log_host", text(func(r *Record) *[]byte { return &r.Host })},
	{"$lb_log_path", text(func(r *Record) *[]byte { return &r.Path })},
	{"$status", func(r *Record, v []byte) bool { return parseStatus(&r.Status, v) }},
	{"$lb_own_error", func(r *Record, v []byte) bool { return isNone(v) || parseStatus(&r.OwnError, v) }},
	{"$sent_http_grpc_status", parseGRPCStatus},    // of an answer without a message, and of nginx's own
	{"$sent_trailer_grpc_status", parseGRPCStatus}, // of all others
	{"$http_grpc_timeout", parseTimeout},
	{"$request_completion", func(r *Record, v []byte) bool { r.Completed = string(v) == "OK"; return true }},
	{"$request_length", func(r *Record, v []byte) (ok bool) { r.RequestBytes, ok = number(v); return ok }},
	{"$bytes_sent", func(r *Record, v []byte) (ok bool) { r.ResponseBytes, ok = number(v); return ok }},
	{"$remote_addr", text(func(r *Record) *[]byte { return &r.Client })},
	{"$lb_request_id", text(func(r *Record) *[]byte { return &r.RequestID })},
	{"$lb_trace", text(func(r *Record) *[]byte { return &r.Trace })},
	{"$lb_started", func(r *Record, v []byte) (ok bool) {
		if isNone(v) {
			return true
		}
		r.started, ok = parseStarted(v)
		return ok
	}},
	{"$upstream_addr", parseAddresses},
	{"$upstream_status", parseStatuses},
	{"$upstream_connect_time", parseTimes(func(t *Try) *time.Duration { return &t.Connect })},
	{"$upstream_header_time", parseTimes(func(t *Try) *time.Duration { return &t.Header })},
	{"$upstream_response_time", parseTimes(func(t *Try) *time.Duration { return &t.Took })},
}

// Format returns the format of requests as nginx's directive log_format wants it. nginx escapes a
// tab and a line feed in a value, so that both are always separators.
func Format() string { return format(fields[:]) }

func format(fields []field) string {
	texts := make([]string, len(fields))
	for n, f := range fields {
		texts[n] = f.text
	}
	return `escape=default "` + strings.Join(texts, `\t`) + `"`
}

// Record is what a line says of a request, or of a session of a TCP service, which leaves all fields
// empty that only requests have. The Reader uses the memory of its slices again for
// the next line. A text is empty if nginx has none.
type Record struct {
	// TCP: it is a session. Its Status is nginx's: 200, 400, 403, 500, 502 or 503.
	TCP     bool
	Time    time.Time     // when the request ended
	Took    time.Duration // from its first byte on; of a session, from its connection on
	Service []byte        // its name; empty: the request reached no service
	Route   []byte        // the route that it took, as endpoints.Route.String returns it
	Method  []byte
	Scheme  []byte // "https" or "http", that the client used; a trusted proxy may say it
	// HTTPVersion is that of the client's request, "1.1" or "2"; empty if nginx could not read it.
	HTTPVersion []byte
	Host        []byte // empty if it is longer than 255 bytes, or has a user
	Path        []byte // up to the query or to the first parameter (";"), which never reach the log; at most 512 bytes
	Status      int    // that the client got; 499: it did not wait for the answer
	// OwnError is the status of nginx's own error answer, also where a gRPC client got status 200
	// with a grpc-status; 496: the client showed no valid certificate, and got another status.
	// Of a session that nginx ended itself, it is what HTTP would have: 429 for too many connections.
	// 0: the answer is an instance's, or no error.
	OwnError int
	// GRPCStatus is the grpc-status that the client got, -1 if there was none: it is not gRPC, or
	// the call was broken off.
	GRPCStatus int
	// Timeout is the time that a gRPC client gave the call; 0: none, or it is not gRPC.
	Timeout   time.Duration
	Completed bool // nginx sent the whole answer
	// RequestBytes and ResponseBytes are those of headers and bodies that the client sent and got;
	// within TLS, if nginx ends that of a session.
	RequestBytes, ResponseBytes int64
	Client                      []byte // its address without port; see Internal
	RequestID                   []byte // that the client sent or nginx made
	// Trace has the ids of the trace: "TRACE PARENT SPAN SAMPLED"; empty without tracing.
	Trace []byte
	Tries []Try // in order; none: nginx answered itself

	started started // of a request that has a line for its beginning
}

// Health reports whether lbctl answered with the health of the services: the request is the
// balancer's own, and for no service.
func (r *Record) Health() bool { return len(r.Service) == 0 && string(r.Route) == "health" }

// Internal reports whether lbctl itself asked nginx, over a unix socket.
func (r *Record) Internal() bool { return string(r.Client) == "unix:" }

// Try is one attempt to have a request answered by an instance, or a session taken.
type Try struct {
	// Address is the instance's address and port, "10.0.0.1:80" or "[fd00::1]:80". It is the
	// name of the upstream if nginx could try no instance, and the sentinel's address if there
	// is none.
	Address []byte
	// Status is the HTTP status of the answer. Without an answer it is nginx's own: 502 if the
	// instance could not be reached or broke off, 504 if it took too long, 0 if the client did
	// not wait.
	Status int
	// Connect, Header and Took are the times from the beginning of the try until nginx was
	// connected, until it had the headers of the answer, and until the try ended; -1 if that did
	// not happen.
	Connect, Header, Took time.Duration
}

// Answered reports whether the headers of an answer came.
func (t *Try) Answered() bool { return t.Header >= 0 }

// deadlineSlack is how much before a client's deadline a call may end because of it: nginx's
// times are milliseconds of its own clock, which it reads once for many events.
const deadlineSlack = 5 * time.Millisecond

// Expired reports whether the time was over that a gRPC client gave the call. Client and server
// then both end it, and either can be the first: some servers, such as those of grpc-go, break
// the call off without an answer.
func (r *Record) Expired() bool { return r.Timeout > 0 && r.Took >= r.Timeout-deadlineSlack }

// isNone reports whether nginx wrote that a variable has no value.
func isNone(v []byte) bool { return len(v) == 0 || len(v) == 1 && v[0] == '-' }

// text is the field of a text. nginx has escaped all but printable ASCII in it.
func text(of func(*Record) *[]byte) func(*Record, []byte) bool {
	return func(r *Record, v []byte) bool {
		if !isNone(v) {
			*of(r) = unescape(v)
		}
		return true
	}
}

// unescape replaces each \xHH of nginx's escaping by its byte, in place.
func unescape(v []byte) []byte {
	from := bytes.IndexByte(v, '\\')
	if from < 0 {
		return v
	}
	to := v[:from]
	for ; from < len(v); from++ {
		c := v[from]
		if c == '\\' && from+3 < len(v) && v[from+1] == 'x' {
			if n, err := strconv.ParseUint(string(v[from+2:from+4]), 16, 8); err == nil {
				c = byte(n)
				from += 3
			}
		}
		to = append(to, c)
	}
	return to
}

// parse fills the record from a line without its line feed. It reports whether the line is
// complete and valid.
func (r *Record) parse(line []byte) bool {
	*r = Record{GRPCStatus: -1, Tries: r.Tries[:0]}
	if bytes.HasPrefix(line, []byte(sessionVersion+"\t")) {
		return r.parseSession(line)
	}
	if !r.parseFields(fields[:], line) {
		return false
	}
	if r.OwnError == 0 && r.Status >= 400 && r.Status != 499 && !r.answered() {
		r.OwnError = r.Status // of a page of the operator's, or without any: the body did not arrive in time
	}
	return true
}

func (r *Record) parseFields(fields []field, line []byte) bool {
	last := len(fields) - 1
	for n := range fields {
		end := bytes.IndexByte(line, '\t')
		if (end < 0) != (n == last) {
			return false // too few fields, or too many: a part of another line
		}
		if end < 0 {
			end = len(line)
		}
		if !fields[n].parse(r, line[:end]) {
			return false
		}
		line = line[min(end+1, len(line)):]
	}
	return true
}

// answered reports whether the headers of the last instance's answer came.
func (r *Record) answered() bool { return len(r.Tries) > 0 && r.Tries[len(r.Tries)-1].Answered() }

func parseTime(r *Record, v []byte) bool {
	d, ok := parseSeconds(v)
	r.Time = time.UnixMilli(d.Milliseconds())
	return ok
}

// parseSeconds parses seconds with three decimals, as nginx writes all times.
func parseSeconds(v []byte) (time.Duration, bool) {
	point := len(v) - len(".000")
	if point < 1 || v[point] != '.' {
		return 0, false
	}
	s, ok1 := number(v[:point])
	ms, ok2 := number(v[point+1:])
	return time.Duration(s)*time.Second + time.Duration(ms)*time.Millisecond, ok1 && ok2 && s < 1<<33
}

// timeoutUnits are the units of the gRPC header grpc-timeout.
var timeoutUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// parseTimeout parses a client's grpc-timeout, such as "300m". What has another form counts as
// none: a client may send anything.
func parseTimeout(r *Record, v []byte) bool {
	if len(v) < 2 || len(v) > 9 {
		return true
	}
	n, ok := number(v[:len(v)-1])
	unit := timeoutUnits[v[len(v)-1]]
	if ok && unit > 0 && n <= math.MaxInt64/int64(unit) {
		r.Timeout = time.Duration(n) * unit
	}
	return true
}

// parseHTTPVersion keeps "2" of "HTTP/2.0", and "1.1" of "HTTP/1.1".
func parseHTTPVersion(r *Record, v []byte) bool {
	if version, ok := bytes.CutPrefix(v, []byte("HTTP/")); ok {
		r.HTTPVersion = version
		if major, ok := bytes.CutSuffix(version, []byte(".0")); ok && string(major) != "1" {
			r.HTTPVersion = major
		}
	}
	return true
}

func parseStatus(to *int, v []byte) bool {
	n, ok := number(v)
	*to = int(n)
	return ok && n < 1000
}

// parseGRPCStatus keeps the status of another field if this one has none. An instance may send
// anything: what is no number is no status.
func parseGRPCStatus(r *Record, v []byte) bool {
	if n, ok := number(v); ok && n < 1000 {
		r.GRPCStatus = int(n)
	}
	return true
}

// number parses decimal digits; false for anything else.
func number(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// parseAddresses makes the tries; the fields after it fill them.
func parseAddresses(r *Record, v []byte) bool {
	if isNone(v) {
		return true
	}
	for len(v) > 0 {
		var address []byte
		address, v = cutTry(v)
		r.Tries = append(r.Tries, Try{Address: address, Connect: -1, Header: -1, Took: -1})
	}
	return true
}

func parseStatuses(r *Record, v []byte) bool {
	return eachTry(r, v, func(t *Try, status []byte) bool {
		return isNone(status) || parseStatus(&t.Status, status)
	})
}

// parseTimes parses a time of each try.
func parseTimes(of func(*Try) *time.Duration) func(*Record, []byte) bool {
	return func(r *Record, v []byte) bool {
		return eachTry(r, v, func(t *Try, seconds []byte) (ok bool) {
			if isNone(seconds) {
				return true
			}
			*of(t), ok = parseSeconds(seconds)
			return ok
		})
	}
}

// eachTry calls parse for each try with its part of a value. It returns false if the value
// has not one part for each.
func eachTry(r *Record, v []byte, parse func(t *Try, part []byte) bool) bool {
	if len(r.Tries) == 0 {
		return isNone(v)
	}
	for n := range r.Tries {
		var part []byte
		part, v = cutTry(v)
		if len(part) == 0 || !parse(&r.Tries[n], part) {
			return false
		}
	}
	return len(v) == 0
}

// cutTry cuts a value after the part of its first try. nginx puts ", " between the tries, and
// " : " where a request has moved to another location.
func cutTry(v []byte) (part, rest []byte) {
	for n, c := range v {
		switch {
		case c == ',':
			return v[:n], v[min(n+2, len(v)):]
		case c == ' ':
			return v[:n], v[min(n+3, len(v)):]
		}
	}
	return v, nil
}

// String returns the record for people and tests.
func (r *Record) String() string {
	var b strings.Builder
	b.WriteString(string(r.Service) + " " + strconv.Itoa(r.Status))
	if r.OwnError > 0 {
		b.WriteString(" own " + strconv.Itoa(r.OwnError))
	}
	if r.TCP {
		b.WriteString(" session " + r.OwnReason(false))
		for n := range r.Tries {
			b.WriteString(" " + string(r.Tries[n].Address) + "=" + r.Result(n, false))
		}
		return b.String()
	}
	b.WriteString(" grpc " + strconv.Itoa(r.GRPCStatus))
	if r.Expired() {
		b.WriteString(" expired")
	}
	for _, t := range r.Tries {
		b.WriteString(" " + string(t.Address) + "=" + strconv.Itoa(t.Status))
		if !t.Answered() {
			b.WriteString(" unanswered")
		}
	}
	return b.String()
}
