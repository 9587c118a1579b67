package render

import (
	"bytes"
	"log"
	"log/slog"
	"reflect"
)

// bridge turns the lines of package log into records of logger. consul-template logs
// through package log, with the level in brackets.
type bridge struct{ logger *slog.Logger }

// standardHandler is slog's initial handler, which writes to package log.
var standardHandler = slog.Default().Handler()

// bridgeLog sends consul-template's log to logger. It redirects package log for the whole
// process, since consul-template can't log in another way.
func bridgeLog(logger *slog.Logger) {
	if reflect.TypeOf(logger.Handler()) == reflect.TypeOf(standardHandler) {
		return // the logger itself writes to package log, so this would deadlock
	}
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(bridge{logger})
}

// Write logs one line. Lines about failing queries become debug, because Status reports
// them. Lines of lower levels are dropped: at DEBUG consul-template shows the Consul token.
func (b bridge) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level, rest, ok := bytes.Cut(text, []byte("] "))
	if !ok || len(level) == 0 || level[0] != '[' {
		b.logger.Info("log", "text", string(text)) // not from consul-template
		return len(line), nil
	}
	switch string(level[1:]) {
	case "TRACE", "DEBUG", "INFO":
	case "WARN":
		b.logger.Debug("consul-template", "text", string(rest))
	default:
		b.logger.Warn("consul-template", "text", string(rest))
	}
	return len(line), nil
}
