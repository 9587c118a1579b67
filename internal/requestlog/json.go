package requestlog

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"lbctl/internal/accesslog"
)

// appendJSON appends the Line of a request, as encoding/json would in ASCII, and a line feed. There may be
// thousands in a second, and this costs a tenth of what encoding/json does. sampleRatio is the
// Line's SampleRatio.
func appendJSON(b []byte, r *request, sampleRatio float64) []byte {
	b = append(b, `{"time":"`...)
	b = r.time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"`...)
	b = append(b, r.level()...)
	b = append(b, `","msg":"`...)
	b = appendMessage(b, r)
	b = append(b, `","type":"request"`...)
	b = appendMember(b, "service", r.service)
	b = appendMember(b, "route", r.route)
	b = append(b, `,"protocol":"`...)
	b = append(b, r.protocol()...)
	b = append(b, '"')
	b = appendMember(b, "method", r.method)
	b = appendMember(b, "scheme", r.scheme)
	b = appendMember(b, "http_version", r.httpVersion)
	b = appendMember(b, "host", r.host)
	b = appendMember(b, "path", r.path)
	b = appendInt(b, "status", int64(r.status))
	b = appendMember(b, "grpc_status", accesslog.GRPCStatusName(r.grpcStatus))
	b = appendSeconds(b, "duration_seconds", r.took)
	if n := len(r.tries); n > 0 {
		last := &r.tries[n-1]
		b = appendMember(b, "instance", last.id)
		b = appendMember(b, "node", last.node)
		b = appendMember(b, "endpoint", last.endpoint)
		b = appendMember(b, "version", last.version)
		b = appendTimes(b, "upstream_", last)
		b = appendTries(b, r.tries)
	}
	if r.ownError != 0 {
		b = appendInt(b, "nginx_error", int64(r.ownError))
	}
	b = appendMember(b, "nginx_error_reason", r.reason)
	b = append(b, `,"complete":`...)
	b = strconv.AppendBool(b, r.complete)
	b = appendInt(b, "request_bytes", r.requestBytes)
	b = appendInt(b, "response_bytes", r.responseBytes)
	b = appendMember(b, "client", r.client)
	b = appendMember(b, "request_id", r.id)
	b = appendTrace(b, r)
	if sampleRatio > 0 && sampleRatio < 1 {
		b = append(b, `,"sample_ratio":`...)
		b = strconv.AppendFloat(b, sampleRatio, 'f', -1, 64)
	}
	return append(b, '}', '\n')
}

// level is how much a request needs an operator.
func (r *request) level() string {
	switch {
	case r.failed():
		return "ERROR"
	case r.ownError != 0 || r.status == 499 || r.tcp && len(r.reason) > 0 || len(r.tries) > 1:
		return "WARN"
	}
	return "INFO"
}

func (r *request) protocol() string {
	switch {
	case r.grpc:
		return "grpc"
	case r.tcp:
		return "tcp"
	}
	return "http"
}

// appendMessage appends a request in a few words: "GET /cart 200", and for gRPC without its
// method, which is always POST, "/shop.Cart/Add OK". A session is "TCP 200".
func appendMessage(b []byte, r *request) []byte {
	if r.tcp {
		b = append(b, "TCP "...)
	}
	if !r.grpc && len(r.method) > 0 {
		b = append(appendQuoted(b, r.method), ' ')
	}
	if len(r.path) > 0 {
		b = append(appendQuoted(b, r.path), ' ')
	}
	if name := accesslog.GRPCStatusName(r.grpcStatus); name != "" {
		return append(b, name...)
	}
	return strconv.AppendInt(b, int64(r.status), 10)
}

func appendTries(b []byte, tries []try) []byte {
	b = append(b, `,"tries":[`...)
	for n := range tries {
		if n > 0 {
			b = append(b, ',')
		}
		t := &tries[n]
		from := len(b)
		b = appendMember(b, "endpoint", t.endpoint)
		b = appendMember(b, "instance", t.id)
		b = appendMember(b, "node", t.node)
		b = appendMember(b, "result", t.result)
		if t.status != 0 {
			b = appendInt(b, "status", int64(t.status))
		}
		b = appendTimes(b, "", t)
		b[from] = '{' // in place of the first comma: a try always has a result
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendTimes(b []byte, prefix string, t *try) []byte {
	for _, time := range [...]struct {
		name string
		d    time.Duration
	}{{"connect_seconds", t.connect}, {"header_seconds", t.header}, {"response_seconds", t.took}} {
		if time.d >= 0 {
			b = append(append(append(b, ',', '"'), prefix...), time.name...)
			b = appendDuration(append(b, '"', ':'), time.d)
		}
	}
	return b
}

// appendTrace appends the ids of a trace, which are in a text as accesslog.Record has it.
func appendTrace(b []byte, r *request) []byte {
	trace, rest, _ := bytes.Cut(r.trace, []byte{' '})
	parent, rest, _ := bytes.Cut(rest, []byte{' '})
	span, sampled, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return b
	}
	b = appendMember(b, "trace_id", trace)
	b = appendMember(b, "span_id", span)
	if string(parent) != "-" {
		b = appendMember(b, "parent_span_id", parent)
	}
	flags := "00"
	if string(sampled) == "1" {
		flags = "01"
	}
	return appendMember(b, "trace_flags", flags)
}

// traceID is the id of the request's trace; empty if it has none.
func (r *request) traceID() []byte {
	id, _, _ := bytes.Cut(r.trace, []byte{' '})
	return id
}

// appendMember appends a member of an object if it has a text.
func appendMember[T string | []byte](b []byte, name string, text T) []byte {
	if len(text) == 0 {
		return b
	}
	b = appendName(b, name)
	b = append(b, '"')
	b = appendQuoted(b, text)
	return append(b, '"')
}

func appendName(b []byte, name string) []byte {
	return append(append(append(b, ',', '"'), name...), '"', ':')
}

func appendInt(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(appendName(b, name), n, 10)
}

func appendSeconds(b []byte, name string, d time.Duration) []byte {
	return appendDuration(appendName(b, name), d)
}

// appendDuration appends seconds with at most three decimals.
func appendDuration(b []byte, d time.Duration) []byte {
	ms := d.Milliseconds()
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms > 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
		b = bytes.TrimRight(b, "0")
	}
	return b
}

const hex = "0123456789abcdef"

// appendQuoted appends a text as the inside of a string of JSON, in ASCII: what clients choose
// can't control the terminal of somebody who looks at the lines. Bytes that are not UTF-8 become the
// replacement character, as with encoding/json.
func appendQuoted[T string | []byte](b []byte, text T) []byte {
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, text[start:i]...)
		size := 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
			b = appendEscape(b, r)
		}
		i += size
		start = i
	}
	return append(b, text[start:]...)
}

// appendEscape appends the escape of a character, or two if it needs a surrogate pair.
func appendEscape(b []byte, r rune) []byte {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(b, high), low)
	}
	return append(b, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
}

// ascii returns a JSON text with escapes in the place of what is not ASCII, which only strings
// have.
func ascii(text []byte) []byte {
	if bytes.IndexFunc(text, func(r rune) bool { return r >= 0x7f }) < 0 {
		return text
	}
	var b []byte
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r < 0x7f {
			b = append(b, text[0])
		} else {
			b = appendEscape(b, r)
		}
		text = text[size:]
	}
	return b
}
