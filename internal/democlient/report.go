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

// report is what came of the calls. Its JSON fields are a promise: new ones
// may come, these stay as they are.
type report struct {
	Target         string    `json:"target"`
	Authority      string    `json:"authority,omitempty"` // as asked for with -authority
	Mode           string    `json:"mode"`                // "unary" or "stream"
	Started        time.Time `json:"started"`             // UTC, as all times here
	Seconds        float64   `json:"seconds"`             // from the start until all calls and streams were over
	Calls          int       `json:"calls"`               // answered and failed; in a stream a message is a call
	Answered       int       `json:"answered"`
	Failed         int       `json:"failed"`
	CallsPerSecond float64   `json:"calls_per_second"`
	Answers        []answers `json:"answers"`  // by server: most calls first, then by name
	Failures       []failure `json:"failures"` // by code: most calls first, then by name
	Latency        *latency  `json:"latency"`  // null when no call was answered
	Streams        *streams  `json:"streams,omitempty"`
}

// answers are those of one server.
type answers struct {
	From  string    `json:"from"` // NAME of "Hello from NAME.", the whole answer if it reads otherwise
	Calls int       `json:"calls"`
	First time.Time `json:"first"` // when the first answer came
	Last  time.Time `json:"last"`

	greeting string // as it came
}

// failure is what failed with one gRPC code.
type failure struct {
	Code    string    `json:"code"` // gRPC's name: UNAVAILABLE, DEADLINE_EXCEEDED, ...
	Calls   int       `json:"calls"`
	Example string    `json:"example"` // the message of the first one
	First   time.Time `json:"first"`   // when the first call had failed
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

// streams is how the streams of -stream fared.
type streams struct {
	Opened int `json:"opened"`
	Broken int `json:"broken"` // of those opened, ended otherwise than by the client
}

// ok reports whether there were answers and nothing else.
func (r report) ok() bool {
	return r.Answered > 0 && r.Failed == 0 && (r.Streams == nil || r.Streams.Broken == 0)
}

// recorder collects what the workers see, and tells events as they happen.
type recorder struct {
	cfg     config
	started time.Time
	events  io.Writer

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

// call records one call that began then and took that long.
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
			if !r.reported[s.Code()] { // a broken stream was reported already
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

// event tells what happened, with the time since the start. Nothing is lost
// with an event that can't be written.
func (r *recorder) event(at time.Time, format string, args ...any) {
	_, _ = fmt.Fprintf(r.events, "%9s  %s\n", "+"+seconds(at.Sub(r.started)), fmt.Sprintf(format, args...))
}

// report sums up what was recorded until now.
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

// from is NAME of "Hello from NAME.", and any other greeting as it is.
func from(greeting string) string {
	if name, ok := strings.CutPrefix(greeting, "Hello from "); ok {
		if name, ok := strings.CutSuffix(name, "."); ok && name != "" {
			return name
		}
	}
	return greeting
}

// describe is the error of a call as people read it: "UNAVAILABLE: no healthy
// instance".
func describe(err error) string {
	s := status.Convert(err)
	return codeName(s.Code()) + ": " + s.Message()
}

// codeName is gRPC's name of the code, where Go has one of its own:
// DEADLINE_EXCEEDED, not DeadlineExceeded.
func codeName(c codes.Code) string {
	return code.Code(c).String()
}

// rounded is x to three digits after the point: no one reads further.
func rounded(x float64) float64 {
	return math.Round(x*1000) / 1000
}

// latest is the later one, for calls are recorded by many workers.
func latest(last, t time.Time) time.Time {
	return later(last, t.UTC())
}
