package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"lbctl/internal/accesslog"
	"lbctl/internal/history"
	"lbctl/internal/requestlog"
)

// The columns of a line of 'lbctl logs', and the spaces after each.
const (
	logTime   = 13
	logStatus = 12
	logTook   = 7
	logIndent = logTime + logStatus + logTook

	logTargetNarrow  = 25 // service and instance
	logTargetWide    = 31
	logRequestNarrow = 26 // if there is something after it
	logRequestWide   = 41

	// From these widths on a line has everything about a request, with short columns and with
	// longer ones.
	wideTerminal   = 120
	widestTerminal = 150
	// shortID is as much of an ID as --trace and --request-id need.
	shortID = 12
)

// logText is a line of the log for people. On a narrow terminal, what does not fit is in a second
// line.
func logText(terminal Terminal, now time.Time, line requestlog.Line) string {
	at := terminal.paint(dim, pad(logClock(line.Time, now), logTime))
	switch {
	case line.Request != nil:
		return at + requestText(terminal, line)
	case line.Event != nil:
		what, style := kindText(line.Kind)
		return at + terminal.paint(style, pad(what, logStatus)) + pad(right(elapsed(seconds(line.Took)), logTook-1), logTook) +
			terminal.wrap(eventText(line), logIndent)
	case line.Type == requestlog.TypeDropped:
		return at + terminal.paint(yellow, fmt.Sprintf("%s missing: they came faster than this command took them", plural(int(line.Dropped), "line")))
	}
	return at + line.Msg // of a newer daemon
}

// logClock is the time of day in milliseconds, or the day and the minute if that is not today.
func logClock(at, now time.Time) string {
	at = at.In(now.Location())
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05.000")
	}
	return at.Format("Jan _2 15:04")
}

func eventText(line requestlog.Line) string {
	text := changeText(history.Event{Kind: line.Kind, Change: line.Change, Reason: line.Reason, Left: line.Left})
	if line.Generation > 0 {
		text = fmt.Sprintf("generation %d: %s", line.Generation, text)
	}
	return strings.TrimSuffix(text, ": ")
}

func requestText(terminal Terminal, line requestlog.Line) string {
	r := line.Request
	wide := terminal.Width == 0 || terminal.Width >= wideTerminal
	target, request, details := targetText(r), requestOf(r), detailsOf(r)
	targetWidth := logTargetNarrow
	if wide {
		targetWidth = logTargetWide
	}
	status := cmp.Or(r.GRPCStatus, fmt.Sprint(r.Status))
	begin := terminal.paint(requestStyle(line), pad(status, logStatus)) + pad(right(requestTook(seconds(r.DurationSeconds)), logTook-1), logTook) +
		terminal.paint(cyan, pad(cutTo(terminal, target, targetWidth-1), targetWidth))
	room := terminal.Width - logIndent - targetWidth
	if extra := utf8.RuneCountInString(status) - (logStatus - 1); extra > 0 {
		room -= extra // a long name of a status shifts the rest
	}
	text := strings.Join(details, ", ")
	all := strings.Join(append(details, identityOf(r, terminal.Width > 0)...), ", ")
	column := logRequestWide
	if terminal.Width < widestTerminal {
		column = logRequestNarrow
	}
	fits := func(text string) bool { return column+utf8.RuneCountInString(text) <= room }
	switch {
	case terminal.Width == 0:
		return begin + pad(request, logRequestWide) + all
	case wide && fits(all):
		text = all
	case text == "":
		return begin + cutTo(terminal, request, room)
	}
	if wide && fits(text) {
		column = max(column, min(utf8.RuneCountInString(request)+1, room-utf8.RuneCountInString(text)))
		return begin + pad(cut(request, column-1), column) + terminal.paint(dim, text)
	}
	return begin + cutTo(terminal, request, room) + "\n" + strings.Repeat(" ", logTime) + terminal.paint(dim, terminal.wrap(text, logTime))
}

// targetText is the instance that a request was sent to, with its service unless its name begins
// with that. Without a service it is what answers instead, such as "health"; "-" if nothing does.
func targetText(r *requestlog.Request) string {
	instance := cmp.Or(r.Instance, r.Endpoint)
	switch {
	case instance == "" || r.Service != "" && strings.HasPrefix(instance, r.Service):
		return orDash(cmp.Or(instance, r.Service, r.Route))
	case r.Service == "":
		return instance
	}
	return r.Service + "/" + instance
}

// requestOf is what the client asked for. The host counts if no service says more, and gRPC's
// method is always POST.
func requestOf(r *requestlog.Request) string {
	if r.Protocol == "tcp" {
		return strings.TrimSpace("TCP " + r.Host)
	}
	text := r.Path
	if r.Service == "" {
		text = r.Host + text
	}
	if r.Protocol != "grpc" {
		text = r.Method + " " + text
	}
	return orDash(strings.TrimSpace(text))
}

// detailsOf says why a request went as it did.
func detailsOf(r *requestlog.Request) (details []string) {
	if r.NginxErrorReason != "" {
		details = append(details, reasonText(r.NginxErrorReason))
	} else if !r.Complete {
		details = append(details, "broken off")
	}
	if n := len(r.Tries); n > 1 {
		var before []string
		for _, t := range r.Tries[:n-1] {
			text := cmp.Or(t.Instance, t.Endpoint, "no instance") + " " + resultText(t)
			if t.ResponseSeconds != nil {
				text += " " + requestTook(seconds(*t.ResponseSeconds))
			}
			before = append(before, strings.TrimSuffix(text, " -"))
		}
		details = append(details, "after "+strings.Join(before, " and "))
	}
	return details
}

// reasonText is a reason of accesslog for people.
func reasonText(reason string) string {
	switch reason {
	case accesslog.ReasonClientLeft:
		return "the client left"
	case accesslog.ReasonGRPCWeb:
		return "nginx: gRPC-Web"
	}
	return "nginx: " + strings.ReplaceAll(reason, "-", " ")
}

// resultText is the result of a try that another one followed.
func resultText(t requestlog.Try) string {
	switch t.Result {
	case accesslog.Result4xx, accesslog.Result5xx:
		return fmt.Sprint(t.Status)
	case accesslog.ResultConnect:
		return "no connection"
	}
	return t.Result
}

// identityOf says who sent a request, and how to find it elsewhere: the beginning of an ID if it
// is to be short.
func identityOf(r *requestlog.Request, short bool) (details []string) {
	id := func(id string) string {
		if short {
			return id[:min(len(id), shortID)]
		}
		return id
	}
	if r.Client != "" {
		details = append(details, "from "+r.Client)
	}
	switch {
	case r.TraceID != "":
		details = append(details, "trace "+id(r.TraceID))
	case r.RequestID != "":
		details = append(details, "id "+id(r.RequestID))
	}
	return details
}

func requestStyle(line requestlog.Line) style {
	switch {
	case line.Level == "ERROR":
		return red
	case line.Level == "WARN" || line.Status >= 400:
		return yellow
	}
	return green
}

// pad appends spaces to a text up to a width, at least one.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(1, width-utf8.RuneCountInString(text)))
}

// right puts spaces before a text.
func right(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}

// cutTo cuts a text to a width on a terminal.
func cutTo(terminal Terminal, text string, width int) string {
	if terminal.Width == 0 {
		return text
	}
	return cut(text, max(width, minWidth))
}

// requestTook formats a duration of a request, which nginx measures in milliseconds.
func requestTook(d time.Duration) string {
	if d < time.Millisecond {
		return "<1ms"
	}
	return elapsed(d)
}
