package render

import (
	"bytes"
	"log"
	"log/slog"
	"reflect"
)

// bridge makes lines of package log, through which consul-template logs with a
// level in brackets, records of logger.
type bridge struct{ logger *slog.Logger }

// standardHandler is what slog starts with: it writes to package log.
var standardHandler = slog.Default().Handler()

// bridgeLog sends consul-template's log to logger. It takes over package log
// for the whole process, since consul-template has no other way out.
func bridgeLog(logger *slog.Logger) {
	if reflect.TypeOf(logger.Handler()) == reflect.TypeOf(standardHandler) {
		return // it writes to package log itself, and would wait for itself
	}
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(bridge{logger})
}

// Write logs one line. Status reports queries that fail, so their lines are debug. Lines
// of lower levels are dropped: at DEBUG consul-template shows the Consul token.
func (b bridge) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level, rest, ok := bytes.Cut(text, []byte("] "))
	if !ok || len(level) == 0 || level[0] != '[' {
		b.logger.Info("log", "text", string(text)) // somebody else's
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
