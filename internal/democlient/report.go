package democlient

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// report is the result of the calls. Its JSON fields are stable: new ones may be added, but
// these don't change.
type report struct {
	Target         string    `json:"target"`
	Authority      string    `json:"authority,omitempty"` // the value of -authority
	Mode           string    `json:"mode"`                // "unary" or "stream"
	Started        time.Time `json:"started"`             // UTC, as all times here
	Seconds        float64   `json:"seconds"`             // until all calls and streams had ended
	Calls          int       `json:"calls"`               // answered and failed; in a stream a message is a call
	Answered       int       `json:"answered"`
	Failed         int       `json:"failed"`
	CallsPerSecond float64   `json:"calls_per_second"`
	Answers        []answers `json:"answers"`  // by server, sorted by calls (most first), then by name
	Failures       []failure `json:"failures"` // by code, sorted by calls (most first), then by name
	Latency        *latency  `json:"latency"`  // null when no call was answered
	Streams        *streams  `json:"streams,omitempty"`
}

// answers counts the answers of one server.
type answers struct {
	From  string    `json:"from"` // NAME of "Hello from NAME.", or the whole answer if it has another form
	Calls int       `json:"calls"`
	First time.Time `json:"first"` // when the first answer came
	Last  time.Time `json:"last"`

	greeting string // the whole answer
}

// failure counts the calls that failed with one gRPC code.
type failure struct {
	Code    string    `json:"code"` // gRPC's name: UNAVAILABLE, DEADLINE_EXCEEDED, ...
	Calls   int       `json:"calls"`
	Example string    `json:"example"` // the message of the first failure
	First   time.Time `json:"first"`   // when the first call failed
	Last    time.Time `json:"last"`
}

// latency is how long the answered calls took, in milliseconds.
type latency struct {
	Min float64 `json:"min_ms"`
	P50 float64 `json:"p50_ms"` // half of the calls took at most this long
	P90 float64 `json:"p90_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// streams counts the streams of -stream.
type streams struct {
	Opened int `json:"opened"`
	Broken int `json:"broken"` // of the opened ones, those that the client did not end
}

// ok reports whether there were answers, no failures and no broken streams.
func (r report) ok() bool {
	return r.Answered > 0 && r.Failed == 0 && (r.Streams == nil || r.Streams.Broken == 0)
}

// recorder collects the results of the workers, and prints events.
type recorder struct {
	cfg     config
	started time.Time
	events  io.Writer
	traces  io.Writer // gets the ids of traces; nil: nobody asks for them

	mu       sync.Mutex
	answers  map[string]*answers // by greeting
	failures map[codes.Code]*failure
	reported map[codes.Code]bool // in events
	latency  histogram
	streams  streams
}

func newRecorder(cfg config, events io.Writer) *recorder {
	return &recorder{
		cfg:      cfg,
		started:  time.Now(),
		events:   events,
		answers:  map[string]*answers{},
		failures: map[codes.Code]*failure{},
		reported: map[codes.Code]bool{},
	}
}

// call records one call with its start and duration.
func (r *recorder) call(begun time.Time, took time.Duration, greeting string, err error) {
	ended := begun.Add(took)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		s := status.Convert(err)
		f := r.failures[s.Code()]
		if f == nil {
			f = &failure{Code: codeName(s.Code()), Example: s.Message(), First: ended.UTC()}
			r.failures[s.Code()] = f
			if !r.reported[s.Code()] { // a broken stream has been reported already
				r.event(ended, "first failure: %s", describe(err))
			}
		}
		f.Calls++
		f.Last = latest(f.Last, ended)
		return
	}
	a := r.answers[greeting]
	if a == nil {
		a = &answers{From: from(greeting), First: ended.UTC(), greeting: greeting}
		r.answers[greeting] = a
		r.event(ended, "first answer from %s", a.From)
	}
	a.Calls++
	a.Last = latest(a.Last, ended)
	r.latency.add(took)
}

// trace prints the id of a call's trace, or of a stream's, which is empty if there is none. A call
// took some time; a stream goes on.
func (r *recorder) trace(id string, took time.Duration, err error) {
	if r.traces == nil {
		return
	}
	outcome := codeName(status.Code(err))
	if took > 0 {
		outcome += " " + short(float64(took)/float64(time.Millisecond))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.traces, "trace %s  %s\n", cmp.Or(id, "none"), outcome)
}

func (r *recorder) streamOpened() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams.Opened++
}

func (r *recorder) streamBroke(after time.Duration, answered int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams.Broken++
	r.reported[status.Code(err)] = true
	r.event(time.Now(), "stream broke after %s and %s: %s", seconds(after), count(answered, "answer"), describe(err))
}

// event prints an event with the time since the start. It ignores a write error, since the
// report has the same facts.
func (r *recorder) event(at time.Time, format string, args ...any) {
	_, _ = fmt.Fprintf(r.events, "%9s  %s\n", "+"+seconds(at.Sub(r.started)), fmt.Sprintf(format, args...))
}

// report returns the report so far.
func (r *recorder) report(now time.Time) report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := report{
		Target:    r.cfg.target,
		Authority: r.cfg.authority,
		Mode:      "unary",
		Started:   r.started.UTC(),
		Seconds:   rounded(now.Sub(r.started).Seconds()),
		Answers:   []answers{}, // [] in JSON, not null
		Failures:  []failure{},
		Latency:   r.latency.summary(),
	}
	for _, a := range r.answers {
		out.Answers = append(out.Answers, *a)
		out.Answered += a.Calls
	}
	slices.SortFunc(out.Answers, func(a, b answers) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.From, b.From), cmp.Compare(a.greeting, b.greeting))
	})
	for _, f := range r.failures {
		out.Failures = append(out.Failures, *f)
		out.Failed += f.Calls
	}
	slices.SortFunc(out.Failures, func(a, b failure) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Code, b.Code))
	})
	out.Calls = out.Answered + out.Failed
	if took := now.Sub(r.started).Seconds(); took > 0 {
		out.CallsPerSecond = rounded(float64(out.Calls) / took)
	}
	if r.cfg.stream {
		out.Mode = "stream"
		out.Streams = &r.streams
	}
	return out
}

// from returns NAME of "Hello from NAME.", and any other greeting unchanged.
func from(greeting string) string {
	if name, ok := strings.CutPrefix(greeting, "Hello from "); ok {
		if name, ok := strings.CutSuffix(name, "."); ok && name != "" {
			return name
		}
	}
	return greeting
}

// describe returns the error of a call for people, such as "UNAVAILABLE: no healthy
// instance".
func describe(err error) string {
	s := status.Convert(err)
	return codeName(s.Code()) + ": " + s.Message()
}

// codeName returns gRPC's name of the code, which differs from Go's: DEADLINE_EXCEEDED, not
// DeadlineExceeded.
func codeName(c codes.Code) string {
	return code.Code(c).String()
}

// rounded returns x rounded to three digits after the point.
func rounded(x float64) float64 {
	return math.Round(x*1000) / 1000
}

// latest returns the later time. Workers do not record their calls in order.
func latest(last, t time.Time) time.Time {
	return later(last, t.UTC())
}
