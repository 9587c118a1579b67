package main

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
  -listen ADDRESS      GRPC_SERVER_LISTEN       :7777      host:port to serve on; port 0 takes a free one
  -name NAME           GRPC_SERVER_NAME         host name  who the answers come from
  -delay DURATION      GRPC_SERVER_DELAY        0s         wait before each answer
  -notice DURATION     GRPC_SERVER_NOTICE       0s         when stopping: still take calls this long after
                                                           saying NOT_SERVING, for watchers to notice
  -drain DURATION      GRPC_SERVER_DRAIN        10s        when stopping: let calls in flight take this long
  -log-level LEVEL     GRPC_SERVER_LOG_LEVEL    info       debug, info, warn, error; debug shows health checks
  -log-format FORMAT   GRPC_SERVER_LOG_FORMAT   text       text, json

A flag wins over its variable. Durations are written 250ms, 10s, 1m30s.

Services:
  protos.Ping             SayHello (one answer) and Stream (one answer per message)
  grpc.health.v1.Health   for "" and "protos.Ping"
  reflection              for grpcurl and the like

Stopping: on SIGTERM or SIGINT health turns NOT_SERVING, -notice passes, new
calls are refused and those in flight finish; what is still running after
-drain is cut off. A second signal ends the process at once.

Exit codes:
  0  stopped when asked to, every call answered
  1  could not listen or serve
  2  a flag or variable is wrong
  3  stopped when asked to, calls in flight were cut off

Examples:
  grpc_server                                    answer on port 7777
  grpc_server -listen 127.0.0.1:7001 -name one   one of several on one machine
  grpc_server -delay 2s -drain 30s               slow answers, and time to finish them
`

// config is what flags and environment say.
type config struct {
	listen    string
	name      string
	delay     time.Duration
	notice    time.Duration
	drain     time.Duration
	logLevel  slog.Level
	logFormat string
}

// parse reads the environment, then args, which win. It returns flag.ErrHelp
// when help is asked for, and otherwise all mistakes at once.
func parse(args []string, lookup func(string) (string, bool)) (config, error) {
	var cfg config
	flags := cfg.flags()
	var problems []error
	flags.VisitAll(func(f *flag.Flag) {
		value, ok := lookup(variable(f.Name))
		if !ok || value == "" {
			return // empty is unset: compose files pass variables on so
		}
		if err := flags.Set(f.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("%s %q: %w", variable(f.Name), value, err))
		}
	})
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return cfg, err
	} else if err != nil {
		problems = append(problems, err)
	} else if flags.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0)))
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"delay", cfg.delay}, {"notice", cfg.notice}, {"drain", cfg.drain}} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("-%s (%s) is %v, want 0s or more", d.flag, variable(d.flag), d.value))
		}
	}
	if cfg.logFormat != "text" && cfg.logFormat != "json" {
		problems = append(problems, fmt.Errorf("-log-format (%s) is %q, want text or json", variable("log-format"), cfg.logFormat))
	}
	if cfg.name == "" {
		var err error
		if cfg.name, err = os.Hostname(); err != nil {
			problems = append(problems, fmt.Errorf("no host name (%w): set -name or %s", err, variable("name")))
		}
	}
	return cfg, errors.Join(problems...)
}

// flags sets c to the defaults and returns what sets it from a command line.
// Their text is in help, in an order that reads well.
func (c *config) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("grpc_server", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints errors and help, each to its own place
	flags.StringVar(&c.listen, "listen", ":7777", "")
	flags.StringVar(&c.name, "name", "", "")
	flags.DurationVar(&c.delay, "delay", 0, "")
	flags.DurationVar(&c.notice, "notice", 0, "")
	flags.DurationVar(&c.drain, "drain", 10*time.Second, "")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "")
	flags.StringVar(&c.logFormat, "log-format", "text", "")
	return flags
}

// variable is the environment variable of the flag: log-level is
// GRPC_SERVER_LOG_LEVEL.
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
