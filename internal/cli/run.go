package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/daemon"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/printable"
	"lbctl/internal/probe"
)

const runHelp = `Keep nginx serving what Consul says, until a SIGTERM.

A supervisor starts nginx, not lbctl. nginx keeps serving when lbctl ends. lbctl must
run as the same user as nginx's master process.

The environment variable in brackets sets a flag; the command line overrides it.
lbctl connects to Consul with Consul's own variables: CONSUL_HTTP_ADDR (default
127.0.0.1:8500), CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_SSL,
CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE, ...`

type runOptions struct {
	Err   io.Writer // the log
	Known []string  // the environment variables of lbctl

	Config    daemon.Config
	LogFormat string
	LogLevel  string
}

func newRunCmd(f *factory) *cobra.Command {
	cmd, _ := newRun(f)
	return cmd
}

// newRun returns the command with its options, which its flags fill.
func newRun(f *factory) (*cobra.Command, *runOptions) {
	opts := &runOptions{Err: f.err, Config: daemon.Config{Version: version, Environ: f.environ}}
	cfg := &opts.Config
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon: keep nginx serving what Consul says",
		Long:    runHelp,
		Example: `  CONSUL_HTTP_ADDR=10.0.0.3:8500 lbctl run --state-dir /var/lib/lbctl`,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	configFlags(flags, cfg)
	choose(flags, &opts.LogFormat, "log-format", "LBCTL_LOG_FORMAT", "FORMAT",
		"text or json", "text", "text", "json")
	choose(flags, &opts.LogLevel, "log-level", "LBCTL_LOG_LEVEL", "LEVEL",
		"debug, info, warn or error", "info", "debug", "info", "warn", "error")
	opts.Known = append(slices.Sorted(maps.Values(flags.variables)), "LBCTL_ADDR")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runRun(cmd.Context(), opts) }
	return cmd, opts
}

// configFlags defines the flags of the daemon's settings.
func configFlags(flags *flags, cfg *daemon.Config) {
	directoryFlags(flags, &cfg.StateDir, &cfg.RunDir)
	kvPrefixFlag(flags, &cfg.KVPrefix)
	nginxFlags(flags, &cfg.Nginx)
	define(flags, &cfg.Admin, "admin", "LBCTL_ADMIN", "ADDRESS:PORT",
		`address of the read-only HTTP API; "none" for the unix socket only`, admin.DefaultAddress, parseAdmin)
	define(flags, (*hostList)(&cfg.AllowedHosts), "admin-allowed-hosts", "LBCTL_ADMIN_ALLOWED_HOSTS", "NAMES",
		"further host names that the HTTP API accepts, separated by commas: lb.example.com,*.example.org",
		nil, parseHosts)
	applyFlags(flags, cfg)
	tableFlags(flags, &cfg.Table)
	probeFlags(flags, &cfg.Probe)
	metricsFlags(flags, cfg)
	requestLogFlags(flags, cfg)
	flags.check(func(mistake func(format string, args ...any)) {
		if cfg.Controller.SettleMin > cfg.Controller.SettleMax {
			mistake("%s %s: want at most %s, %s", flags.source("settle-min"), cfg.Controller.SettleMin, flags.source("settle-max"), cfg.Controller.SettleMax)
		}
	})
}

// applyFlags defines the flags about applying changes and keeping generations.
func applyFlags(flags *flags, cfg *daemon.Config) {
	defaults := controller.DefaultOptions()
	define(flags, &cfg.Controller.SettleMin, "settle-min", "LBCTL_SETTLE_MIN", "DURATION",
		"quiet time that lbctl waits for before it applies a change soon after another one", defaults.SettleMin, parseDuration(time.Millisecond))
	define(flags, &cfg.Controller.SettleMax, "settle-max", "LBCTL_SETTLE_MAX", "DURATION",
		"longest wait for quiet time", defaults.SettleMax, parseDuration(time.Millisecond))
	define(flags, &cfg.Server.VerifyTimeout, "verify-timeout", "LBCTL_VERIFY_TIMEOUT", "DURATION",
		"longest time until nginx must serve a new generation", nginx.DefaultVerifyTimeout, parseDuration(3*time.Second))
	define(flags, &cfg.Server.Keep, "keep", "LBCTL_KEEP", "N",
		"generations to keep on disk", nginx.DefaultKeep, parseNumber(2, 10000))
}

// tableFlags defines the flags that decide which instances get traffic.
func tableFlags(flags *flags, opts *endpoints.Options) {
	defaults := endpoints.DefaultOptions()
	define(flags, &opts.GuardShare, "guard-share", "LBCTL_GUARD_SHARE", "SHARE",
		"share of all instances; if more vanish from Consul within --guard-window, lbctl holds them", defaults.GuardShare, parseShare)
	define(flags, &opts.GuardWindow, "guard-window", "LBCTL_GUARD_WINDOW", "DURATION",
		"time window for detecting a mass disappearance", defaults.GuardWindow, parseDuration(time.Second))
	define(flags, &opts.GuardHold, "guard-hold", "LBCTL_GUARD_HOLD", "DURATION",
		"how long lbctl keeps held instances in rotation", defaults.GuardHold, parseDuration(time.Second))
	define(flags, &opts.MinInstances, "min-instances", "LBCTL_MIN_INSTANCES", "N",
		"minimum of instances of a service; if fewer would be left, lbctl holds those that vanish (default none)", defaults.MinInstances, parseNumber(0, 10000))
	define(flags, &opts.PanicThreshold, "panic-threshold", "LBCTL_PANIC_THRESHOLD", "PERCENT",
		"minimum percentage of a service's instances in rotation, rounded up; below it, send traffic to all except those in maintenance (0: never)", defaults.PanicThreshold, parsePanicThreshold)
	define(flags, &opts.MaxStale, "max-stale", "LBCTL_MAX_STALE", "DURATION",
		"how long a service gets traffic that Consul does not confirm (default for ever)", defaults.MaxStale, parseDurationOrNone(10*time.Second))
	define(flags, &opts.MaxEjected, "max-ejected", "LBCTL_MAX_EJECTED", "SHARE",
		"maximum share of a service's instances in rotation that lbctl ejects", defaults.MaxEjected, parseShare)
	define(flags, &opts.SlowStart, "slow-start", "LBCTL_SLOW_START", "DURATION",
		"time in which the weight of a returning instance rises to its full value; 0 for at once", defaults.SlowStart, parseDurationOrNone(time.Second))
}

// probeFlags defines the flags of lbctl's own probes.
func probeFlags(flags *flags, opts *probe.Options) {
	defaults := probe.DefaultOptions()
	define(flags, (*onOff)(&opts.InRotation), "probe", "LBCTL_PROBE", "on|off",
		"probe instances in rotation, and eject those that fail", onOff(defaults.InRotation), parseOnOff)
	flags.completeWith("probe", cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	define(flags, &opts.Interval, "probe-interval", "LBCTL_PROBE_INTERVAL", "DURATION",
		"interval between probes of an instance", defaults.Interval, parseDuration(100*time.Millisecond))
	define(flags, &opts.Timeout, "probe-timeout", "LBCTL_PROBE_TIMEOUT", "DURATION",
		"timeout of a probe", defaults.Timeout, parseDuration(10*time.Millisecond))
	define(flags, &opts.Fall, "probe-fall", "LBCTL_PROBE_FALL", "N",
		"consecutive failures that eject an instance", defaults.Fall, parseNumber(1, 100))
	define(flags, &opts.Rise, "probe-rise", "LBCTL_PROBE_RISE", "N",
		"consecutive successes that bring an instance back", defaults.Rise, parseNumber(1, 100))
}

// onOff is the value of a flag that is "on" or "off".
type onOff bool

func (o onOff) String() string {
	if o {
		return "on"
	}
	return "off"
}

func parseOnOff(given string) (onOff, error) {
	choice, err := parseChoice("on", "off")(given)
	return choice == "on", err
}

// parsePanicThreshold maps 0, which means never, to -1: the table's zero value is the
// default.
func parsePanicThreshold(given string) (int, error) {
	percent, err := parseNumber(0, 100)(given)
	if err == nil && percent == 0 {
		return -1, nil
	}
	return percent, err
}

// hostList is the value of a flag with several names.
type hostList []string

func (l hostList) String() string { return strings.Join(l, ",") }

func parseHosts(given string) (hostList, error) {
	names := strings.Split(given, ",")
	for _, name := range names {
		if err := admin.CheckAllowedHost(name); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
	}
	return names, nil
}

func parseAdmin(given string) (string, error) {
	if given == "none" {
		return "", nil
	}
	address, err := parseListen(given)
	if err != nil {
		return "", fmt.Errorf(`want ADDRESS:PORT, such as 127.0.0.1:9119, or "none"`)
	}
	return address, nil
}

// runRun sets up the log and runs the daemon.
func runRun(ctx context.Context, opts *runOptions) error {
	daemon.SurviveBrokenPipe() // before the first line of the log
	logger := newLogger(opts)
	slog.SetDefault(logger)
	warnOfUnknown(logger, opts)
	opts.Config.Logger = logger
	return daemon.Run(ctx, opts.Config)
}

func newLogger(opts *runOptions) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(opts.LogLevel)) // the flag accepts only valid levels
	options := &slog.HandlerOptions{Level: level}
	if opts.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(opts.Err, options))
	}
	return slog.New(slog.NewTextHandler(printable.Writer(opts.Err), options))
}

// discardLogger is for commands that report everything in their result.
func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// warnOfUnknown logs environment variables that start with LBCTL_ and that lbctl does
// not know. They are probably misspelled.
func warnOfUnknown(logger *slog.Logger, opts *runOptions) {
	for _, line := range opts.Config.Environ {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "LBCTL_") && !slices.Contains(opts.Known, name) {
			logger.Warn("unknown environment variable", "name", name, "known", strings.Join(opts.Known, " "))
		}
	}
}
