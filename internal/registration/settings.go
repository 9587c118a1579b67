package registration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/pflag"
)

// Setting is one value of the configuration, set by an environment variable or a flag; the
// flag wins.
type Setting struct {
	// Group is the setting's heading in the help.
	Group string
	// Flag is the name without dashes, Env the variable.
	Flag, Env string
	// Value is the placeholder for the value in the help.
	Value string
	// Default is the default value, or a description of it in parentheses; empty if there
	// is none.
	Default string
	Usage   string
	// Repeated: the flag may be given several times.
	Repeated bool

	required string // for a required setting: what it must be, for the error message
	set      func(cfg *Config, values []string) error
}

// Settings returns all settings, in the order of the help.
func Settings() []Setting { return slices.Clone(settings) }

const (
	groupService = "Service"
	groupCheck   = "Health check"
	groupLeaving = "Starting and leaving"
	groupConsul  = "Consul"
	groupMetrics = "Metrics"
)

var settings = []Setting{
	{
		Group: groupService, Flag: "name", Env: "APP_NAME", Value: "NAME",
		Usage:    "name of the service (required)",
		required: "the name of the service, for example hello_server",
		set: func(c *Config, v []string) error {
			c.Name = last(v)
			if !validName.MatchString(c.Name) {
				return fmt.Errorf("%q is not a service name, want letters, digits, '_', '-' and '.', at most 128, starting with a letter or digit", c.Name)
			}
			return nil
		},
	},
	{
		Group: groupService, Flag: "port", Env: "APP_PORT", Value: "PORT",
		Usage:    "port the server listens on (required)",
		required: "the port the server listens on, for example 7777",
		set: func(c *Config, v []string) (err error) {
			c.Port, err = parsePort(last(v))
			return err
		},
	},
	{
		Group: groupService, Flag: "tags", Env: "TAGS", Value: "TAG,...", Repeated: true,
		Usage: "tags, comma separated; grpc_server or http_server lets lbctl balance the service",
		set: func(c *Config, v []string) error {
			c.Tags = nil
			for _, tag := range strings.Split(strings.Join(v, ","), ",") {
				if tag = strings.TrimSpace(tag); tag == "" || slices.Contains(c.Tags, tag) {
					continue
				}
				if strings.ContainsFunc(tag, unicode.IsControl) {
					return fmt.Errorf("tag %q has a control character, want printable text", tag)
				}
				c.Tags = append(c.Tags, tag)
			}
			return nil
		},
	},
	{
		Group: groupService, Flag: "meta", Env: "META", Value: "KEY=VALUE", Repeated: true,
		Usage: "metadata, such as lb-host=www.example.com; the variable takes several, comma separated",
		set:   setMeta,
	},
	{
		Group: groupService, Flag: "reflection", Env: "GRPC_REFLECTION", Value: "MODE", Default: "on",
		Usage: "on: ask a gRPC server which services it offers, as routes; or off",
		set: func(c *Config, v []string) error {
			c.Reflection = last(v) == "on"
			return oneOf(last(v), "on", "off")
		},
	},
	{
		Group: groupService, Flag: "weight", Env: "WEIGHT", Value: "N[/N]", Default: "1/1",
		Usage: "share of the traffic while passing, and while in warning",
		set:   setWeight,
	},
	{
		Group: groupService, Flag: "address", Env: "SERVICE_ADDRESS", Value: "ADDRESS", Default: "(Consul's node address)",
		Usage: "IP address or host name callers should use",
		set: func(c *Config, v []string) error {
			c.Address = last(v)
			ip := net.ParseIP(c.Address)
			if ip == nil && !validHost.MatchString(c.Address) || ip != nil && ip.IsUnspecified() {
				return fmt.Errorf("%q is not an address callers can use, want an IP address or a host name, without a port, for example 10.0.0.7", c.Address)
			}
			return nil
		},
	},
	{
		Group: groupService, Flag: "id", Env: "SERVICE_ID", Value: "ID", Default: "(NAME-HOSTNAME-PORT)",
		Usage: "id of this instance",
		set: func(c *Config, v []string) error {
			c.ID = last(v)
			if !validID.MatchString(c.ID) {
				return fmt.Errorf("%q is not an instance id, want letters, digits and '_', '-', '.', ':', at most 255", c.ID)
			}
			return nil
		},
	},

	{
		Group: groupCheck, Flag: "check-type", Env: "HEALTH_CHECK_TYPE", Value: "TYPE", Default: "(by the protocol)",
		Usage: "grpc, http, tcp, or ttl (a heartbeat of the registrar)",
		set: func(c *Config, v []string) error {
			c.Check.Type = CheckType(last(v))
			return oneOf(c.Check.Type, CheckGRPC, CheckHTTP, CheckTCP, CheckTTL)
		},
	},
	{
		Group: groupCheck, Flag: "check-endpoint", Env: "HEALTH_CHECK_ENDPOINT", Value: "ENDPOINT", Default: "(127.0.0.1:PORT)",
		Usage: "grpc: host:port[/package.Service]; http: a URL or a path; tcp: host:port",
		set: func(c *Config, v []string) error {
			c.Check.Endpoint = last(v) // its form depends on the type, see Parse
			return nil
		},
	},
	{
		Group: groupCheck, Flag: "check-tls", Env: "HEALTH_CHECK_TLS", Value: "MODE", Default: "(by the protocol)",
		Usage: "off, verify, or skip-verify (any certificate); for grpc and http",
		set: func(c *Config, v []string) error {
			c.Check.TLS = TLSMode(last(v))
			return oneOf(c.Check.TLS, TLSOff, TLSVerify, TLSSkipVerify)
		},
	},
	{
		Group: groupCheck, Flag: "check-interval", Env: "CHECK_INTERVAL", Value: "TIME", Default: "2s",
		Usage: "time between two checks; of a ttl check, between two heartbeats",
		set: func(c *Config, v []string) (err error) {
			c.Check.Interval, err = parseDuration(last(v), 100*time.Millisecond)
			return err
		},
	},
	{
		Group: groupCheck, Flag: "check-timeout", Env: "CHECK_TIMEOUT", Value: "TIME", Default: "1s",
		Usage: "time a check may take",
		set: func(c *Config, v []string) (err error) {
			c.Check.Timeout, err = parseDuration(last(v), 10*time.Millisecond)
			return err
		},
	},
	{
		Group: groupCheck, Flag: "successes", Env: "SUCCESS_BEFORE_PASSING", Value: "N", Default: "1",
		Usage: "good results in a row before an instance is passing again",
		set: func(c *Config, v []string) (err error) {
			c.Check.SuccessBeforePassing, err = parseNumber(last(v), 1, 1000)
			return err
		},
	},
	{
		Group: groupCheck, Flag: "failures", Env: "FAILURES_BEFORE_CRITICAL", Value: "N", Default: "2",
		Usage: "bad results in a row before a passing instance is critical",
		set: func(c *Config, v []string) (err error) {
			c.Check.FailuresBeforeCritical, err = parseNumber(last(v), 1, 1000)
			return err
		},
	},
	{
		Group: groupCheck, Flag: "deregister-after", Env: "DEREGISTER_AFTER", Value: "TIME", Default: "10m",
		Usage: "Consul removes an instance critical for so long; at least 1m, or never",
		set: func(c *Config, v []string) (err error) {
			if last(v) == "never" {
				c.Check.DeregisterAfter = 0
				return nil
			}
			// Consul uses a minute, without a message, if the value is less.
			if c.Check.DeregisterAfter, err = parseDuration(last(v), time.Minute); err != nil {
				return fmt.Errorf("%w, or never", err)
			}
			return nil
		},
	},

	{
		Group: groupLeaving, Flag: "ready-timeout", Env: "READY_TIMEOUT", Value: "TIME", Default: "10s",
		Usage: "wait for a starting server before it is registered as critical",
		set: func(c *Config, v []string) (err error) {
			c.ReadyTimeout, err = parseDuration(last(v), 0)
			return err
		},
	},
	{
		Group: groupLeaving, Flag: "drain", Env: "DRAIN", Value: "TIME", Default: "5s",
		Usage: "serve on for so long after leaving the rotation",
		set: func(c *Config, v []string) (err error) {
			c.Drain, err = parseDuration(last(v), 0)
			return err
		},
	},
	{
		Group: groupLeaving, Flag: "stop-timeout", Env: "STOP_TIMEOUT", Value: "TIME", Default: "10s",
		Usage: "exec: time the command has to end after SIGTERM, then it is killed",
		set: func(c *Config, v []string) (err error) {
			c.StopTimeout, err = parseDuration(last(v), 0)
			return err
		},
	},

	{
		Group: groupConsul, Flag: "consul-port", Env: "CONSUL_PORT", Value: "PORT", Default: "8500",
		Usage: "the agent is at 127.0.0.1:PORT",
		set: func(c *Config, v []string) error {
			port, err := parsePort(last(v))
			c.ConsulAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			return err
		},
	},
	{
		Group: groupConsul, Flag: "consul-addr", Env: "CONSUL_HTTP_ADDR", Value: "ADDRESS",
		Usage: "the agent is there: host:port, a URL, or unix:///path; wins over the port",
		set: func(c *Config, v []string) error {
			c.ConsulAddr = last(v)
			return nil
		},
	},
	{
		Group: groupConsul, Flag: "attempts", Env: "REGISTER_ATTEMPTS", Value: "N", Default: "10",
		Usage: "attempts to register before giving up with exit code 1",
		set: func(c *Config, v []string) (err error) {
			c.Attempts, err = parseNumber(last(v), 1, 1_000_000)
			return err
		},
	},
	{
		Group: groupConsul, Flag: "attempt-delay", Env: "REGISTER_DELAY", Value: "TIME", Default: "1s",
		Usage: "pause between two attempts",
		set: func(c *Config, v []string) (err error) {
			c.AttemptDelay, err = parseDuration(last(v), 0)
			return err
		},
	},

	{
		Group: groupMetrics, Flag: "metrics", Env: "METRICS", Value: "ADDRESS:PORT", Default: "off",
		Usage: "serve the registrar's metrics for Prometheus there, at /metrics; port 0: a free one",
		set:   setMetrics,
	},
}

var (
	validName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	validID      = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,255}$`)
	validHost    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$`)
	validMetaKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
)

// AddFlags adds a flag for every setting. The flags accept any value: [Parse] reads
// the values, so that it can report all mistakes at once.
func AddFlags(flags *pflag.FlagSet) {
	for _, s := range settings {
		flags.Var(&flagValue{placeholder: s.Value, repeated: s.Repeated}, s.Flag, s.Usage+" ["+s.Env+"]")
	}
}

type flagValue struct {
	placeholder string
	repeated    bool
	values      []string
}

func (f *flagValue) String() string { return strings.Join(f.values, ",") }
func (f *flagValue) Type() string   { return f.placeholder }
func (f *flagValue) Set(value string) error {
	if !f.repeated {
		f.values = nil
	}
	f.values = append(f.values, value)
	return nil
}

// Parse makes a configuration from the flags that [AddFlags] added and from the environment.
// Flags win over variables; an empty variable counts as not set. The error has one line for
// each mistake, which names the flag or variable, its value, and the values it accepts.
func Parse(flags *pflag.FlagSet, getenv func(string) string) (Config, error) {
	var cfg Config
	var mistakes []error
	name := map[string]string{} // the flag or variable that the user has set, by flag
	for _, s := range settings {
		values, source := given(s, flags, getenv)
		switch {
		case values != nil:
			name[s.Flag] = source
		case s.required != "":
			mistakes = append(mistakes, fmt.Errorf("%s (or --%s) is not set, want %s", s.Env, s.Flag, s.required))
			continue
		case s.Default == "" || strings.HasPrefix(s.Default, "("):
			continue
		default:
			values, source = []string{s.Default}, s.Env
		}
		if s.Flag == "consul-addr" && source == s.Env && name["consul-port"] == "--consul-port" {
			continue // the flag --consul-port wins over the variable CONSUL_HTTP_ADDR
		}
		if err := s.set(&cfg, values); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", source, err))
		}
	}
	protocol, typeGiven := protocolOf(cfg), cfg.Check.Type != ""
	cfg.Check.complete(protocol)
	if err := cfg.Check.validEndpoint(); err != nil {
		if protocol != "" && !typeGiven {
			err = fmt.Errorf("%w (the check is of type %s by META and TAGS; HEALTH_CHECK_TYPE sets another)", err, cfg.Check.Type)
		}
		mistakes = append(mistakes, fmt.Errorf("%s: %w", name["check-endpoint"], err))
	}
	if tlsUseless := cfg.Check.Type == CheckTCP || cfg.Check.Type == CheckTTL; tlsUseless && cfg.Check.TLS != TLSOff {
		mistakes = append(mistakes, fmt.Errorf("%s: %q given for a check of type %s, want off, or a check of type grpc or http", name["check-tls"], cfg.Check.TLS, cfg.Check.Type))
	}
	if n, most := len(cfg.Meta), cfg.mostPairs(); n > most {
		mistakes = append(mistakes, fmt.Errorf("%s: %d pairs, want at most %d: Consul takes 64, and the others are the registrar's own", name["meta"], n, most))
	}
	if cfg.ID == "" && len(mistakes) == 0 {
		id, err := defaultID(cfg)
		if err != nil {
			mistakes = append(mistakes, err)
		}
		cfg.ID = id
	}
	return cfg, errors.Join(mistakes...)
}

// given returns the values that the user has set, and the flag or variable; nil if there are
// none.
func given(s Setting, flags *pflag.FlagSet, getenv func(string) string) (values []string, source string) {
	if flag := flags.Lookup(s.Flag); flag != nil && flag.Changed {
		return flag.Value.(*flagValue).values, "--" + s.Flag
	}
	if value := strings.TrimSpace(getenv(s.Env)); value != "" {
		if s.Flag == "meta" {
			return splitPairs(value), s.Env
		}
		return []string{value}, s.Env
	}
	return nil, ""
}

func defaultID(cfg Config) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("SERVICE_ID (or --id) is not set and can't be made: %w", err)
	}
	id := fmt.Sprintf("%s-%s-%d", cfg.Name, host, cfg.Port)
	if !validID.MatchString(id) {
		return "", fmt.Errorf("SERVICE_ID (or --id) is not set and %q, made of name, host name and port, can't be one; want letters, digits and '_', '-', '.', ':', at most 255", id)
	}
	return id, nil
}

// splitPairs splits "a=1,b=2,3" into "a=1" and "b=2,3": a comma starts a new pair only if an
// equals sign follows before the next comma, so that lists of host names need no quoting.
func splitPairs(value string) []string {
	var pairs []string
	for _, piece := range strings.Split(value, ",") {
		if len(pairs) > 0 && !strings.Contains(piece, "=") {
			pairs[len(pairs)-1] += "," + piece
			continue
		}
		pairs = append(pairs, piece)
	}
	return pairs
}

// mostPairs is Consul's limit for metadata, without the registrar's own pairs.
func (c Config) mostPairs() int {
	const most, owner, metrics = 64, 1, 1
	if c.Metrics == "" {
		return most - owner
	}
	return most - owner - metrics
}

// setMeta applies the rules of Consul's agent (agent/structs, validateMetaPair) to all pairs,
// and returns all mistakes at once.
func setMeta(c *Config, pairs []string) error {
	c.Meta = map[string]string{}
	var mistakes []error
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		key, value = strings.TrimSpace(key), strings.Trim(value, " ,")
		switch _, twice := c.Meta[key]; {
		case !found:
			mistakes = append(mistakes, fmt.Errorf("%q is not a pair, want key=value, for example lb-host=www.example.com", pair))
		case !validMetaKey.MatchString(key):
			mistakes = append(mistakes, fmt.Errorf("key %q is not one Consul takes, want letters, digits, '_' and '-', at most 128", key))
		case key == ownerKey, key == metricsKey:
			mistakes = append(mistakes, fmt.Errorf("key %q is the registrar's own, want another", key))
		case strings.HasPrefix(key, "consul-"):
			mistakes = append(mistakes, fmt.Errorf("key %q starts with consul-, which Consul keeps for itself, want another", key))
		case len(value) > 512:
			mistakes = append(mistakes, fmt.Errorf("the value of key %q has %d bytes, want at most 512", key, len(value)))
		case twice:
			mistakes = append(mistakes, fmt.Errorf("key %q is given twice, want it once", key))
		default:
			c.Meta[key] = value
		}
	}
	return inOneLine(mistakes)
}

func setMetrics(c *Config, values []string) error {
	address := last(values)
	if address == "off" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	n, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || host != "" && net.ParseIP(host) == nil {
		return fmt.Errorf("%q is not an address to listen on, want one such as :9778 or 127.0.0.1:9778, or off", address)
	}
	c.Metrics = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	return nil
}

func inOneLine(mistakes []error) error {
	if len(mistakes) == 0 {
		return nil
	}
	var lines []string
	for _, mistake := range mistakes {
		lines = append(lines, mistake.Error())
	}
	return errors.New(strings.Join(lines, "; "))
}

func setWeight(c *Config, values []string) error {
	passing, warning, both := strings.Cut(last(values), "/")
	var err, err2 error
	c.Weights.Passing, err = parseNumber(passing, 1, 65535)
	c.Weights.Warning = 1
	if both {
		c.Weights.Warning, err2 = parseNumber(warning, 0, 65535)
	}
	if err != nil || err2 != nil {
		return fmt.Errorf("%q is not a weight, want a number from 1 to 65535, or two such as 10/1 for passing and warning", last(values))
	}
	return nil
}

func last(values []string) string { return strings.TrimSpace(values[len(values)-1]) }

func oneOf[T ~string](value T, allowed ...T) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%q unknown, want one of %q", value, allowed)
}

func parsePort(value string) (int, error) {
	port, err := strconv.Atoi(value)
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("%q is not a port, want a number from 1 to 65535", value)
	}
	return port, nil
}

func parseNumber(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q does not fit, want a number from %d to %d", value, least, most)
	}
	return n, nil
}

func parseDuration(value string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time, want a number with its unit, for example 500ms, 5s or 2m", value)
	}
	if d < least {
		return 0, fmt.Errorf("%q is too short, want at least %s", value, least)
	}
	return d, nil
}
