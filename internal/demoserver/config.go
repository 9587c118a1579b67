package demoserver

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

const help = `grpc_server answers gRPC calls of protos.Ping with "Hello from NAME."

Usage:
  grpc_server [flags]

Flags                  Environment              Default
  -listen ADDRESS      GRPC_SERVER_LISTEN       :7777      host:port to listen on; port 0 chooses a free one
  -name NAME           GRPC_SERVER_NAME         host name  the name in the answers
  -delay DURATION      GRPC_SERVER_DELAY        0s         wait before each answer
  -notice DURATION     GRPC_SERVER_NOTICE       0s         when stopping: accept calls for this long after
                                                           NOT_SERVING, so that watchers notice
  -drain DURATION      GRPC_SERVER_DRAIN        10s        when stopping: time for calls in flight to end
  -metrics ADDRESS     GRPC_SERVER_METRICS      off        host:port for Prometheus, at /metrics; docs/metrics.md
  -log-level LEVEL     GRPC_SERVER_LOG_LEVEL    info       debug, info, warn, error; debug shows health checks
  -log-format FORMAT   GRPC_SERVER_LOG_FORMAT   text       text, json

A flag wins over its variable. Durations have the form 250ms, 10s, 1m30s.

Services:
  protos.Ping             SayHello (one answer) and Stream (one answer per message)
  grpc.health.v1.Health   for "" and "protos.Ping"
  reflection              for grpcurl and the like

With OTEL_EXPORTER_OTLP_ENDPOINT, the server sends a span of each call there.
OpenTelemetry's other variables count too.

Stopping: on SIGTERM or SIGINT the health service reports NOT_SERVING. After
-notice the server refuses new calls and lets those in flight finish. After
-drain it cuts off the rest. A second signal ends the process at once.

Exit codes:
  0  stopped by a signal, every call answered
  1  could not listen or serve
  2  a flag or variable is wrong
  3  stopped by a signal, calls in flight were cut off

Examples:
  grpc_server                                    answer on port 7777
  grpc_server -listen 127.0.0.1:7001 -name one   one of several on one machine
  grpc_server -delay 2s -drain 30s               slow answers, and time to finish them
`

// config has the values of the flags and the environment.
type config struct {
	listen    string
	name      string
	delay     time.Duration
	notice    time.Duration
	drain     time.Duration
	metrics   string // "": no metrics
	logLevel  slog.Level
	logFormat string
}

// parse reads the environment, then args, which win. It returns flag.ErrHelp for -h;
// otherwise its error has all mistakes.
func parse(args []string, lookup func(string) (string, bool)) (config, error) {
	var cfg config
	flags := cfg.flags()
	var problems []error
	flags.VisitAll(func(f *flag.Flag) {
		value, ok := lookup(variable(f.Name))
		if !ok || value == "" {
			return // an empty variable counts as not set, because compose files pass unset ones on as empty
		}
		if err := flags.Set(f.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("invalid value %q for variable %s: %w", value, variable(f.Name), err))
		}
	})
	for rest := args; ; rest = flags.Args() {
		err := flags.Parse(rest)
		if err == nil {
			break
		}
		if errors.Is(err, flag.ErrHelp) {
			return cfg, err
		}
		problems = append(problems, err)
		if flags.NArg() == len(rest) {
			return cfg, errors.Join(problems...) // bad syntax: the rest of the arguments can't be parsed
		}
	}
	if flags.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q, there are only flags", flags.Arg(0)))
	}
	if cfg.name == "" {
		var err error
		if cfg.name, err = os.Hostname(); err != nil {
			problems = append(problems, fmt.Errorf("no host name (%w): set -name or %s", err, variable("name")))
		}
	}
	return cfg, errors.Join(problems...)
}

// flags sets c to the defaults and returns a FlagSet that changes it. help has the text about
// the flags.
func (c *config) flags() *flag.FlagSet {
	*c = config{listen: ":7777", drain: 10 * time.Second, logFormat: "text"}
	flags := flag.NewFlagSet("grpc_server", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Main prints errors and help
	flags.StringVar(&c.listen, "listen", c.listen, "")
	flags.StringVar(&c.name, "name", c.name, "")
	flags.Func("delay", "", setDuration(&c.delay))
	flags.Func("notice", "", setDuration(&c.notice))
	flags.Func("drain", "", setDuration(&c.drain))
	flags.Func("metrics", "", func(s string) error {
		if c.metrics = s; s == "off" {
			c.metrics = ""
		}
		return nil
	})
	flags.Func("log-level", "", func(s string) error {
		if c.logLevel.UnmarshalText([]byte(s)) != nil {
			return errors.New("want debug, info, warn or error")
		}
		return nil
	})
	flags.Func("log-format", "", func(s string) error {
		if s != "text" && s != "json" {
			return errors.New("want text or json")
		}
		c.logFormat = s
		return nil
	})
	return flags
}

func setDuration(d *time.Duration) func(string) error {
	return func(s string) error {
		value, err := time.ParseDuration(s)
		if err != nil || value < 0 {
			return errors.New("want a duration such as 250ms, 10s or 1m30s")
		}
		*d = value
		return nil
	}
}

// variable returns the environment variable of a flag: GRPC_SERVER_LOG_LEVEL for log-level.
func variable(flag string) string {
	return "GRPC_SERVER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (c config) logHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}
