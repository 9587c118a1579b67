package democlient

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

const help = `grpc_client calls protos.Ping and prints which servers answered.

Usage:
  grpc_client [flags]

Target
  -port PORT           port on localhost, or on the host of -addr (default 5000)
  -addr ADDRESS        HOST, HOST:PORT, or a gRPC target such as dns:///lb:5000
                       or unix:/run/lb.sock (default localhost)
  -authority NAME      host name of the calls, which chooses a route by host
  -tls                 connect with TLS; the default port is then 5443
  -ca FILE             with -tls: trust the certificates in this file instead of
                       those that the system trusts
  -cert FILE           with -tls: the client's own certificate
  -key FILE            with -tls: its key

Calls
  -n CALLS             number of calls, 0 for no limit (default 1; no limit with
                       -duration or -stream)
  -c WORKERS           concurrent calls (default 1)
  -interval DURATION   time between starts of a worker's calls (default 0s, one
                       after the other; 1s with -stream)
  -duration DURATION   start no call after this long
  -timeout DURATION    time limit for each answer (default 5s)
  -connections COUNT   connections to spread the workers over (default 1)
  -stream              each worker keeps one stream open; a call is then a
                       message and its answer. After a failure it opens another.

Output
  -json                print the summary as JSON, even for one call
  -quiet               print no events on standard error
  -trace               print the id of each call's trace on standard error, with
                       its code and time

One call prints its answer. More calls print a summary at the end, and events on
standard error: the first answer of each server, the first failure with each
code, and each broken stream. Ctrl-C ends the calls and prints the summary.

With OTEL_EXPORTER_OTLP_ENDPOINT, the client sends a span of each call there, and
its calls begin traces. OpenTelemetry's other variables count too.

Exit codes:
  0  every call was answered
  1  a call failed, a stream broke, or no call was answered
  2  a flag is wrong

JSON fields:
  target, authority, mode (unary or stream), started, seconds
  calls, answered, failed, calls_per_second
  answers[]   from, calls, first, last         most calls first
  failures[]  code, calls, example, first, last
  latency     min_ms, p50_ms, p90_ms, p99_ms, max_ms   of answered calls;
              null if there are none
  streams     opened, broken                   with -stream only
Times are RFC 3339 in UTC, codes are gRPC's names (UNAVAILABLE). Percentiles
are exact to 1%.

Examples:
  grpc_client -port=5000                          one call
  grpc_client -n 1000 -c 8                        how are 1000 calls spread?
  grpc_client -duration 1m -interval 50ms -c 4    watch a service being scaled
  grpc_client -stream -c 10 -duration 5m          do streams survive reloads?
  grpc_client -authority api.example.com          a route by host
  grpc_client -tls -ca localhost.crt              gRPC over TLS
`

// config has the values of the flags.
type config struct {
	target      string // a gRPC target
	authority   string // "": the target's own
	tls         bool
	ca          string // file of certificates to trust; "": those of the system
	cert, key   string // files of the client's certificate; "": none
	calls       int    // 0 is no bound
	workers     int
	connections int
	interval    time.Duration
	duration    time.Duration // 0 is no bound
	timeout     time.Duration
	stream      bool
	json        bool
	quiet       bool
	trace       bool
}

// The ports of the load balancer.
const (
	defaultPort    = 5000
	defaultTLSPort = 5443
)

// parse reads args. It returns flag.ErrHelp for -h; otherwise its error has all mistakes.
func parse(args []string) (config, error) {
	cfg := config{calls: 1, workers: 1, connections: 1, timeout: 5 * time.Second}
	var addr string
	port := defaultPort
	flags := cfg.flags(&addr, &port)
	var problems []error
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
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })

	if cfg.tls && !given["port"] {
		port = defaultTLSPort
	}
	for name, file := range map[string]string{"ca": cfg.ca, "cert": cfg.cert, "key": cfg.key} {
		if file != "" && !cfg.tls {
			problems = append(problems, fmt.Errorf("flag -%s is for TLS, want -tls too", name))
		}
	}
	if (cfg.cert == "") != (cfg.key == "") {
		problems = append(problems, errors.New("a client's certificate is two files, want both -cert and -key"))
	}
	var err error
	if cfg.target, err = target(addr, port, given["port"]); err != nil {
		problems = append(problems, err)
	}
	if !given["n"] && (cfg.stream || cfg.duration > 0) {
		cfg.calls = 0
	}
	if cfg.calls > 0 {
		cfg.workers = min(cfg.workers, cfg.calls)
	}
	if !given["interval"] && cfg.stream {
		cfg.interval = time.Second
	}
	return cfg, errors.Join(problems...)
}

// flags returns a FlagSet that sets c, addr and port. help has the text about the flags.
func (c *config) flags(addr *string, port *int) *flag.FlagSet {
	flags := flag.NewFlagSet("grpc_client", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Main prints errors and help
	flags.Func("port", "", setNumber(port, 1, 65535))
	flags.StringVar(addr, "addr", "", "")
	flags.StringVar(&c.authority, "authority", "", "")
	flags.BoolVar(&c.tls, "tls", false, "")
	flags.StringVar(&c.ca, "ca", "", "")
	flags.StringVar(&c.cert, "cert", "", "")
	flags.StringVar(&c.key, "key", "", "")
	flags.Func("n", "", setNumber(&c.calls, 0, math.MaxInt32))
	flags.Func("c", "", setNumber(&c.workers, 1, 100_000))
	flags.Func("connections", "", setNumber(&c.connections, 1, 10_000))
	flags.Func("interval", "", setDuration(&c.interval, 0))
	flags.Func("duration", "", setDuration(&c.duration, 1))
	flags.Func("timeout", "", setDuration(&c.timeout, 1))
	flags.BoolVar(&c.stream, "stream", false, "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.BoolVar(&c.quiet, "quiet", false, "")
	flags.BoolVar(&c.trace, "trace", false, "")
	return flags
}

func setNumber(n *int, least, most int) func(string) error {
	return func(s string) error {
		value, err := strconv.Atoi(s)
		if err != nil || value < least || value > most {
			return fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		*n = value
		return nil
	}
}

func setDuration(d *time.Duration, least time.Duration) func(string) error {
	return func(s string) error {
		value, err := time.ParseDuration(s)
		if err != nil || value < least {
			return errors.New("want a duration such as 250ms, 10s or 1m30s")
		}
		*d = value
		return nil
	}
}

// target returns the gRPC target for -addr and -port. Only a host can have a port.
func target(addr string, port int, portGiven bool) (string, error) {
	if addr == "" {
		addr = "localhost"
	}
	whole := strings.Contains(addr, "://") || strings.HasPrefix(addr, "unix:")
	if !whole {
		if host, p, err := net.SplitHostPort(addr); err == nil {
			if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
				return "", fmt.Errorf("invalid value %q for flag -addr: port %q, want a whole number from 1 to 65535", addr, p)
			}
			if host == "" {
				addr = "localhost" + addr // ":5000", as servers write it
			}
			whole = true
		}
	}
	if whole && portGiven {
		return "", fmt.Errorf("-addr %q already has the port, leave out -port %d", addr, port)
	}
	if whole {
		return addr, nil
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), strconv.Itoa(port)), nil
}
