package statuspage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbctl/internal/admin"
	"lbctl/internal/certificates"
	"lbctl/internal/controller"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/traffic"
)

// A look is what was found in the source at one time.
type look struct {
	now      time.Time
	sections map[string][]byte // JSON by name
	services []admin.Service
	figures  traffic.Overview
	inFlight map[string]int64
	errors   func(service string) map[string]LastError
}

// Bounds of what a section lists. The page says how many more there are.
const (
	maxProblems = 100
	maxEvents   = 60
	maxByReload = 20
	maxMessage  = 1000 // bytes
)

type problemsSection struct {
	List []render.Problem `json:"list"`
	More int              `json:"more,omitempty"`
}

type connectionsSection struct {
	Active  int64 `json:"active"`
	Reading int64 `json:"reading"`
	Writing int64 `json:"writing"` // without the question itself
	Waiting int64 `json:"waiting"`
	// Why says why nothing is known.
	Why string `json:"why,omitempty"`
}

type figuresSection struct {
	Why string `json:"why,omitempty"` // Source.NoFigures
	// Missing are requests that were not counted, in total. Late is how many seconds the figures are
	// behind.
	Missing int64 `json:"missing,omitempty"`
	Late    int64 `json:"late,omitempty"`
}

type aboutSection struct {
	Node     string `json:"node"`
	Interval int64  `json:"interval"` // in milliseconds
}

// lookAt looks at the source.
func lookAt(ctx context.Context, opts Options) *look {
	source := opts.Source
	l := &look{now: time.Now(), sections: map[string][]byte{}, errors: source.LastErrors}
	connections := make(chan connectionsSection, 1)
	go func() { connections <- connectionsOf(ctx, source.Connections) }() // a busy nginx may take a second for it

	status := source.Status(ctx)
	l.services = source.Services()
	l.set("problems", problemsOf(status.Problems))
	certs := append([]certificates.Certificate{}, status.Certificates...)
	slices.SortStableFunc(certs, func(a, b certificates.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	l.set("certificates", certs)
	events := source.History()
	l.set("events", events[:min(maxEvents, len(events))])
	l.set("about", aboutSection{Node: opts.Node, Interval: opts.Interval.Milliseconds()})
	if source.Recent != nil {
		l.figures = source.Recent()
	}
	if source.InFlight != nil {
		l.inFlight = source.InFlight()
	}
	figures := figuresSection{Why: source.NoFigures}
	if source.Log != nil {
		stats := source.Log()
		figures.Missing = max(stats.Lost, stats.Malformed) // a malformed line is lost, too, once nginx is asked
		if stats.Unread > 0 {                              // otherwise the last line was late, and all is read
			figures.Late = int64(stats.Lag.Seconds())
		}
	}
	l.set("figures", figures)
	l.set("status", brief(status))
	l.set("connections", <-connections)
	return l
}

func (l *look) set(name string, value any) {
	l.sections[name] = encode(value)
}

// encode returns the JSON of a value. All values of this package have one.
func encode(value any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// brief returns the status without what other sections have.
func brief(s controller.Status) controller.Status {
	s.Problems, s.Certificates, s.LastChange = nil, nil, nil
	s.Endpoints.ByReload = s.Endpoints.ByReload[:min(maxByReload, len(s.Endpoints.ByReload))]
	s.Endpoints.Unfetched = s.Endpoints.Unfetched[:min(maxByReload, len(s.Endpoints.Unfetched))]
	return s
}

func problemsOf(all []render.Problem) problemsSection {
	section := problemsSection{List: append([]render.Problem{}, all[:min(maxProblems, len(all))]...)}
	section.More = len(all) - len(section.List)
	for n := range section.List {
		section.List[n].Message = shorten(section.List[n].Message, maxMessage)
		section.List[n].Sources = nil
	}
	return section
}

func connectionsOf(ctx context.Context, ask func(context.Context) (nginx.Connections, error)) connectionsSection {
	if ask == nil {
		return connectionsSection{Why: "lbctl does not count nginx's connections"}
	}
	c, err := ask(ctx)
	switch {
	case errors.Is(err, nginx.ErrNotRunning):
		return connectionsSection{Why: "nginx does not answer"}
	case err != nil:
		return connectionsSection{Why: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return connectionsSection{Active: c.Active, Reading: c.Reading, Writing: max(0, c.Writing-1), Waiting: c.Waiting}
}

// appendRecent appends the series of a service in columns: [requests, errors, p50, p99, [p50, p99
// of the last minute]]. 0 stands for a column without a value.
func appendRecent(b []byte, r traffic.Recent) []byte {
	column := func(empty float64, digits int, value func(traffic.Point) float64) {
		if !slices.ContainsFunc(r.Points, func(p traffic.Point) bool { return value(p) != empty }) {
			b = append(b, "0,"...)
			return
		}
		b = append(b, '[')
		for n, p := range r.Points {
			if n > 0 {
				b = append(b, ',')
			}
			b = appendNumber(b, value(p), digits)
		}
		b = append(b, "],"...)
	}
	b = append(b, '[')
	column(0, exact, func(p traffic.Point) float64 { return p.Requests })
	column(0, exact, func(p traffic.Point) float64 { return p.Errors })
	column(-1, rounded, func(p traffic.Point) float64 { return milliseconds(p.P50) })
	column(-1, rounded, func(p traffic.Point) float64 { return milliseconds(p.P99) })
	b = append(b, '[')
	b = appendNumber(b, milliseconds(r.P50), rounded)
	b = append(b, ',')
	b = appendNumber(b, milliseconds(r.P99), rounded)
	return append(b, "]]"...)
}

// appendPoint appends the newest point of a service, and the quantiles of its last minute.
func appendPoint(b []byte, r traffic.Recent) []byte {
	p := traffic.Point{P50: -1, P99: -1}
	if n := len(r.Points); n > 0 {
		p = r.Points[n-1]
	}
	b = append(appendNumber(b, p.Requests, exact), ',')
	b = append(appendNumber(b, p.Errors, exact), ',')
	for _, v := range []float64{p.P50, p.P99, r.P50, r.P99} {
		b = append(appendNumber(b, milliseconds(v), rounded), ',')
	}
	return b[:len(b)-1]
}

// idle reports whether a service had no request in the last minute.
func idle(r traffic.Recent) bool {
	n := len(r.Points)
	return n == 0 || r.Points[n-1].Requests == 0 && r.P99 < 0
}

// Digits of numbers: rates are multiples of 0.2, and have few digits anyway.
const (
	exact   = -1
	rounded = 3
)

func appendNumber(b []byte, v float64, digits int) []byte {
	if digits == exact {
		return strconv.AppendFloat(b, v, 'f', -1, 32)
	}
	return strconv.AppendFloat(b, v, 'g', digits, 64)
}

// milliseconds of seconds; -1 stays -1, which means unknown.
func milliseconds(seconds float64) float64 {
	if seconds < 0 {
		return -1
	}
	return seconds * 1000
}
