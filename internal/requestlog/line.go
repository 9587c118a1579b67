package requestlog

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"time"

	"lbctl/internal/history"
)

// The types of a Line.
const (
	TypeRequest = "request"
	TypeEvent   = "event"
	TypeDropped = "dropped"
)

// Line is one line of the log, as JSON: docs/logs.md describes and promises its fields. A field
// that says nothing is left out.
type Line struct {
	Time  time.Time `json:"time"`  // when the request ended, or the event was over
	Level string    `json:"level"` // "INFO", "WARN" or "ERROR"
	Msg   string    `json:"msg"`   // the line in a few words
	Type  string    `json:"type"`

	*Request
	*Event
	// Dropped is the number of lines that are missing before this one.
	Dropped uint64 `json:"dropped,omitempty"`
}

// Request is what the line of a request says, or of a session of a TCP service.
type Request struct {
	Service         string  `json:"service,omitempty" printable:"name"` // none: the request reached no service
	Route           string  `json:"route,omitempty"`                    // of the service, that the request took
	Protocol        string  `json:"protocol"`                           // "http", "grpc" or "tcp"
	Method          string  `json:"method,omitempty" printable:"name"`
	Scheme          string  `json:"scheme,omitempty"`                        // "http" or "https"
	HTTPVersion     string  `json:"http_version,omitempty" printable:"name"` // "1.1" or "2"
	Host            string  `json:"host,omitempty" printable:"name"`
	Path            string  `json:"path,omitempty" printable:"name"`
	Status          int     `json:"status"` // of HTTP, 499: the client left; of a session, nginx's
	GRPCStatus      string  `json:"grpc_status,omitempty"`
	DurationSeconds float64 `json:"duration_seconds"`

	// These are of the last try.
	Instance                string   `json:"instance,omitempty" printable:"name"` // Consul's service id
	Node                    string   `json:"node,omitempty" printable:"name"`
	Endpoint                string   `json:"endpoint,omitempty"`
	Version                 string   `json:"version,omitempty" printable:"name"`
	UpstreamConnectSeconds  *float64 `json:"upstream_connect_seconds,omitempty"`
	UpstreamHeaderSeconds   *float64 `json:"upstream_header_seconds,omitempty"`
	UpstreamResponseSeconds *float64 `json:"upstream_response_seconds,omitempty"`

	Tries []Try `json:"tries,omitempty"` // in order; none: nginx answered itself

	NginxError       int    `json:"nginx_error,omitempty"` // the status of nginx's own error
	NginxErrorReason string `json:"nginx_error_reason,omitempty"`
	Complete         bool   `json:"complete"` // nginx sent the whole answer

	RequestBytes  int64  `json:"request_bytes"`
	ResponseBytes int64  `json:"response_bytes"`
	Client        string `json:"client,omitempty"`
	RequestID     string `json:"request_id,omitempty"`
	TraceID       string `json:"trace_id,omitempty"`
	SpanID        string `json:"span_id,omitempty"`
	ParentSpanID  string `json:"parent_span_id,omitempty"`
	TraceFlags    string `json:"trace_flags,omitempty"` // "01" if the trace is sampled, else "00"
	// SampleRatio is the share of lines like this one that were written; left out if all were.
	SampleRatio float64 `json:"sample_ratio,omitempty"`
}

// Try is one attempt to have a request answered by an instance.
type Try struct {
	Endpoint        string   `json:"endpoint,omitempty"`
	Instance        string   `json:"instance,omitempty" printable:"name"`
	Node            string   `json:"node,omitempty" printable:"name"`
	Result          string   `json:"result"`           // see accesslog.Record.Result
	Status          int      `json:"status,omitempty"` // of HTTP, of the instance or for its failure; none: the client left
	ConnectSeconds  *float64 `json:"connect_seconds,omitempty"`
	HeaderSeconds   *float64 `json:"header_seconds,omitempty"`
	ResponseSeconds *float64 `json:"response_seconds,omitempty"`
}

// Event is what the line of a control event says: a history.Event.
type Event struct {
	Kind       history.Kind        `json:"kind"`
	Generation int                 `json:"generation"`
	From       int                 `json:"from,omitempty"`
	Took       float64             `json:"took_seconds,omitempty"`
	Change     string              `json:"change,omitempty"`
	Reason     string              `json:"reason,omitempty"`
	Left       []history.Departure `json:"left,omitempty"`
}

// lineOf is the line of an event.
func lineOf(e history.Event) Line {
	level, msg := e.Words()
	return Line{
		Time: e.Time.UTC(), Level: level.String(), Msg: msg, Type: TypeEvent,
		Event: &Event{Kind: e.Kind, Generation: e.Generation, From: e.From, Took: e.TookSeconds, Change: e.Change, Reason: e.Reason, Left: e.Left},
	}
}

// eventJSON is the line of an event, without line feed.
func eventJSON(e history.Event) []byte { return marshal(lineOf(e)) }

// droppedJSON says that lines are missing, without line feed.
func droppedJSON(now time.Time, n uint64) []byte {
	return marshal(Line{Time: now, Level: slog.LevelWarn.String(), Msg: "lines are missing", Type: TypeDropped, Dropped: n})
}

// marshal returns a line of JSON in ASCII.
func marshal(l Line) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil { // a time after the year 9999
		return marshal(Line{Level: l.Level, Msg: l.Msg + ": " + err.Error(), Type: l.Type})
	}
	return ascii(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// event is the event that a line is about.
func (l *Line) event() history.Event {
	e := l.Event
	return history.Event{Time: l.Time, Kind: e.Kind, Generation: e.Generation, From: e.From, TookSeconds: e.Took, Change: e.Change, Reason: e.Reason, Left: e.Left}
}
