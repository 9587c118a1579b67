// Package accesslog reads what nginx writes about each request. nginx appends one line a
// request to a file in memory, and a [Reader] reads the lines, gives their memory back, and
// replaces the file from time to time, so that it never needs more than [Options.Size].
package accesslog

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
)

// FormatName is the name of the log's format in nginx's configuration.
const FormatName = "lbctl"

// version is the first field of each line. It must change with fields: after an upgrade, a
// reader finds lines of the former format.
const version = "1"

// field is one field of a line: the text for nginx's log_format, and how its value becomes a
// part of a Record.
type field struct {
	text  string
	parse func(r *Record, value []byte) (ok bool)
}

// fields are the fields of a line, in order.
var fields = [...]field{
	{version, func(_ *Record, v []byte) bool { return string(v) == version }},
	{"$msec", parseTime},
	{"$request_time", func(r *Record, v []byte) (ok bool) { r.Took, ok = parseSeconds(v); return ok }},
	{"$lb_service", func(r *Record, v []byte) bool { r.Service = v; return true }},
	{"$status", func(r *Record, v []byte) bool { return parseStatus(&r.Status, v) }},
	{"$http_grpc_timeout", parseTimeout},
	{"$upstream_addr", parseAddresses},
	{"$upstream_status", parseStatuses},
	{"$upstream_header_time", parseAnswered},
	{"$upstream_http_grpc_status", parseGRPCStatus},    // of an answer without a message
	{"$upstream_trailer_grpc_status", parseGRPCStatus}, // of all others
}

// Format returns the format as nginx's directive log_format wants it. nginx escapes a tab and
// a line feed in a value, so that both are always separators.
func Format() string {
	texts := make([]string, len(fields))
	for n, f := range fields {
		texts[n] = f.text
	}
	return `escape=default "` + strings.Join(texts, `\t`) + `"`
}

// Record is what a line says of a request. The Reader uses the memory of its slices again for
// the next line.
type Record struct {
	Time    time.Time     // when the request ended
	Took    time.Duration // from its first byte on
	Service []byte        // its name; empty: the request reached no service
	Status  int           // that the client got; 499: it did not wait for the answer
	// GRPCStatus is the grpc-status of the last try, -1 if there was none: it is not gRPC, or
	// the call was broken off.
	GRPCStatus int
	// Timeout is the time that a gRPC client gave the call; 0: none, or it is not gRPC.
	Timeout time.Duration
	Tries   []Try // in order; none: nginx answered itself
}

// Try is one attempt to have a request answered by an instance.
type Try struct {
	// Address is the instance's address and port, "10.0.0.1:80" or "[fd00::1]:80". It is the
	// name of the upstream if nginx could try no instance, and the sentinel's address if there
	// is none.
	Address []byte
	// Status is the HTTP status of the answer. Without an answer it is nginx's own: 502 if the
	// instance could not be reached or broke off, 504 if it took too long, 0 if the client did
	// not wait.
	Status   int
	Answered bool // the headers of an answer came
}

// deadlineSlack is how much before a client's deadline a call may end because of it: nginx's
// times are milliseconds of its own clock, which it reads once for many events.
const deadlineSlack = 5 * time.Millisecond

// Expired reports whether the time was over that a gRPC client gave the call. Client and server
// then both end it, and either can be the first: some servers, such as those of grpc-go, break
// the call off without an answer.
func (r *Record) Expired() bool { return r.Timeout > 0 && r.Took >= r.Timeout-deadlineSlack }

// none is what nginx writes for a variable without a value.
const none = "-"

// parse fills the record from a line without its line feed. It reports whether the line is
// complete and valid.
func (r *Record) parse(line []byte) bool {
	*r = Record{GRPCStatus: -1, Tries: r.Tries[:0]}
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
	if string(v) == none {
		return true
	}
	for len(v) > 0 {
		var address []byte
		address, v = cutTry(v)
		r.Tries = append(r.Tries, Try{Address: address})
	}
	return true
}

func parseStatuses(r *Record, v []byte) bool {
	return eachTry(r, v, func(t *Try, status []byte) bool {
		return string(status) == none || parseStatus(&t.Status, status)
	})
}

func parseAnswered(r *Record, v []byte) bool {
	return eachTry(r, v, func(t *Try, seconds []byte) bool {
		t.Answered = string(seconds) != none
		return true
	})
}

// eachTry calls parse for each try with its part of a value. It returns false if the value
// has not one part for each.
func eachTry(r *Record, v []byte, parse func(t *Try, part []byte) bool) bool {
	if len(r.Tries) == 0 {
		return string(v) == none
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
	b.WriteString(string(r.Service) + " " + strconv.Itoa(r.Status) + " grpc " + strconv.Itoa(r.GRPCStatus))
	if r.Expired() {
		b.WriteString(" expired")
	}
	for _, t := range r.Tries {
		b.WriteString(" " + string(t.Address) + "=" + strconv.Itoa(t.Status))
		if !t.Answered {
			b.WriteString(" unanswered")
		}
	}
	return b.String()
}
