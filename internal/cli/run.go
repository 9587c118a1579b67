package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

const runHelp = `Keep nginx serving what Consul says, until a SIGTERM.

nginx itself is started by a supervisor, not by lbctl, and goes on serving when
lbctl ends. lbctl needs to run as the same user as nginx's master process.

Each flag can be given as the environment variable in brackets; the flag wins.
Consul is found by its own standard variables: CONSUL_HTTP_ADDR (default
127.0.0.1:8500), CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_SSL,
CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE, ...`

type runOptions struct {
	Err     io.Writer // the log
	Environ []string
	Known   []string // variables of lbctl's

	StateDir, RunDir string
	Render           *renderFlags
	Admin            string // "" for none

	SettleMin, SettleMax time.Duration
	VerifyTimeout        time.Duration
	Keep                 int
	GuardShare           float64
	GuardWindow          time.Duration
	GuardHold            time.Duration
	MinInstances         int
	PanicThreshold       int
	SlowStart            time.Duration
	MaxStale             time.Duration
	MaxEjected           float64
	Probe                string // "on" or "off"
	ProbeInterval        time.Duration
	ProbeTimeout         time.Duration
	ProbeFall, ProbeRise int
	LogFormat, LogLevel  string
}

func newRunCmd(f *factory) *cobra.Command {
	opts := &runOptions{Err: f.err, Environ: f.environ}
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon: keep nginx serving what Consul says",
		Long:    runHelp,
		Example: `  CONSUL_HTTP_ADDR=10.0.0.3:8500 lbctl run --state-dir /var/lib/lbctl`,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	directoryFlags(flags, &opts.StateDir, &opts.RunDir)
	opts.Render = newRenderFlags(flags)
	define(flags, &opts.Admin, "admin", "LBCTL_ADMIN", "ADDRESS:PORT",
		`where to answer questions over HTTP; "none" for the unix socket only`, defaultAdmin, parseAdmin)
	define(flags, &opts.SettleMin, "settle-min", "LBCTL_SETTLE_MIN", "DURATION",
		"quiet to wait for before a change, when another one has just been applied", 200*time.Millisecond, parseDuration(time.Millisecond))
	define(flags, &opts.SettleMax, "settle-max", "LBCTL_SETTLE_MAX", "DURATION",
		"the longest to wait for quiet", 2*time.Second, parseDuration(time.Millisecond))
	define(flags, &opts.VerifyTimeout, "verify-timeout", "LBCTL_VERIFY_TIMEOUT", "DURATION",
		"how long nginx may take to answer from a new generation", 10*time.Second, parseDuration(3*time.Second))
	define(flags, &opts.Keep, "keep", "LBCTL_KEEP", "N",
		"generations to keep on disk", 20, parseNumber(2, 10000))
	define(flags, &opts.GuardShare, "guard-share", "LBCTL_GUARD_SHARE", "SHARE",
		"share of all instances that may vanish from Consul at once before they are held", 0.5, parseShare)
	define(flags, &opts.GuardWindow, "guard-window", "LBCTL_GUARD_WINDOW", "DURATION",
		"what counts as at once", 10*time.Second, parseDuration(time.Second))
	define(flags, &opts.GuardHold, "guard-hold", "LBCTL_GUARD_HOLD", "DURATION",
		"how long instances that vanished at once are kept in rotation", time.Minute, parseDuration(time.Second))
	define(flags, &opts.MinInstances, "min-instances", "LBCTL_MIN_INSTANCES", "N",
		"instances that a service keeps in rotation when more vanish from Consul (default none)", 0, parseNumber(0, 10000))
	define(flags, &opts.PanicThreshold, "panic-threshold", "LBCTL_PANIC_THRESHOLD", "PERCENT",
		"share of a service's instances not in maintenance, rounded up, that must be in rotation, else all of them are; 0 for never", 1, parseNumber(0, 100))
	define(flags, &opts.MaxStale, "max-stale", "LBCTL_MAX_STALE", "DURATION",
		"how long services that Consul does not confirm are served (default for ever)", 0, parseDurationOrNone(10*time.Second))
	define(flags, &opts.Probe, "probe", "LBCTL_PROBE", "on|off",
		"ask instances in rotation themselves, and eject those that don't answer", "on", parseChoice("on", "off"))
	define(flags, &opts.ProbeInterval, "probe-interval", "LBCTL_PROBE_INTERVAL", "DURATION",
		"how often an instance is asked", time.Second, parseDuration(100*time.Millisecond))
	define(flags, &opts.ProbeTimeout, "probe-timeout", "LBCTL_PROBE_TIMEOUT", "DURATION",
		"how long its answer may take", time.Second, parseDuration(10*time.Millisecond))
	define(flags, &opts.ProbeFall, "probe-fall", "LBCTL_PROBE_FALL", "N",
		"failures in a row that eject an instance", 2, parseNumber(1, 100))
	define(flags, &opts.ProbeRise, "probe-rise", "LBCTL_PROBE_RISE", "N",
		"answers in a row that bring it back", 2, parseNumber(1, 100))
	define(flags, &opts.MaxEjected, "max-ejected", "LBCTL_MAX_EJECTED", "SHARE",
		"share of a service's instances in rotation that may be ejected", 0.5, parseShare)
	define(flags, &opts.SlowStart, "slow-start", "LBCTL_SLOW_START", "DURATION",
		"how long the weight of an instance that was out rises until it is full; 0 for at once", 10*time.Second, parseDurationOrNone(time.Second))
	define(flags, &opts.LogFormat, "log-format", "LBCTL_LOG_FORMAT", "FORMAT",
		"text or json", "text", parseChoice("text", "json"))
	define(flags, &opts.LogLevel, "log-level", "LBCTL_LOG_LEVEL", "LEVEL",
		"debug, info, warn or error", "info", parseChoice("debug", "info", "warn", "error"))
	flags.check(func(mistake func(format string, args ...any)) {
		if opts.SettleMin > opts.SettleMax {
			mistake("%s %s: want at most %s, %s", flags.source("settle-min"), opts.SettleMin, flags.source("settle-max"), opts.SettleMax)
		}
		if port(opts.Render.grpcListen) == port(opts.Render.httpListen) {
			mistake("%s and %s: want two ports, both have %s", flags.source("grpc-listen"), flags.source("http-listen"), port(opts.Render.grpcListen))
		}
	})
	opts.Known = append(slices.Sorted(maps.Values(flags.variables)), "LBCTL_ADDR")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runRun(cmd.Context(), opts) }
	return cmd
}

var defaultAdmin = fmt.Sprintf("127.0.0.1:%d", admin.DefaultPort)

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

func port(address string) string {
	_, port, _ := net.SplitHostPort(address) // parseListen has looked at it
	return port
}

func runRun(ctx context.Context, opts *runOptions) error {
	logger := newLogger(opts)
	slog.SetDefault(logger)
	warnOfUnknown(logger, opts)
	runDir := runDirOf(opts.StateDir, opts.RunDir)
	for _, dir := range []string{opts.StateDir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create the state directory, as --state-dir and --run-dir say: %w", err)
		}
	}
	// The locks come before anything that another daemon could be using.
	for _, dir := range []string{runDir, opts.StateDir} {
		held, err := lock(filepath.Join(dir, "lock"))
		if err != nil {
			return err
		}
		defer held.Close()
	}

	responder := endpoints.NewResponder(logger)
	server, err := nginx.New(nginx.Options{
		StateDir:      opts.StateDir,
		RunDir:        runDir,
		Binary:        opts.Render.nginx,
		Keep:          opts.Keep,
		VerifyTimeout: opts.VerifyTimeout,
		Resolver:      responder,
		Logger:        logger,
	})
	if err != nil {
		return err
	}
	byReload, err := opts.Render.byReload(server.Build())
	if err != nil {
		return err
	}
	settings, err := opts.Render.settings(opts.StateDir, runDir, server.Build())
	if err != nil {
		return err
	}
	var fewWorkers string // why, when the operator hasn't said how many
	if settings.Workers == 0 {
		_, fewWorkers = render.DefaultWorkers(settings.NginxVersion)
	}
	var source *render.Source // which is made of the table, and runs after it is
	table, err := endpoints.Open(filepath.Join(opts.StateDir, "endpoints.json"), endpoints.Options{
		GuardShare:   opts.GuardShare,
		GuardWindow:  opts.GuardWindow,
		GuardHold:    opts.GuardHold,
		MinInstances: opts.MinInstances,
		// 0 is the default there.
		PanicThreshold: cmp.Or(opts.PanicThreshold, -1),
		SlowStart:      opts.SlowStart,
		CheapWeights:   func(service string) bool { return source != nil && source.Asks(service) },
		MaxStale:       opts.MaxStale,
		MaxEjected:     opts.MaxEjected,
		Probe:          opts.Probe == "on",
		ProbeInterval:  opts.ProbeInterval,
		ProbeTimeout:   opts.ProbeTimeout,
		ProbeFall:      opts.ProbeFall,
		ProbeRise:      opts.ProbeRise,
		Logger:         logger,
	})
	if errors.Is(err, endpoints.ErrSnapshot) {
		logger.Warn("starting without what was known of instances", "reason", err)
	} else if err != nil {
		return err
	}
	source, err = render.New(render.Options{
		Settings:      settings,
		TemplatesDir:  opts.Render.templates,
		Table:         table,
		ReservedPorts: reservedPorts(opts.Admin),
		Logger:        logger,
	})
	if err != nil {
		return err
	}
	control := controller.Options{
		StateDir:      opts.StateDir,
		Version:       version,
		SettleMin:     opts.SettleMin,
		SettleMax:     opts.SettleMax,
		EndpointsNote: byReload,
		WorkersNote:   fewWorkers,
		Logger:        logger,
	}
	if byReload == "" {
		if err := responder.Listen(opts.Render.dnsListen); err != nil {
			return fmt.Errorf("%w; another address can be given by --dns-listen", err)
		}
		control.Endpoints = responder
	}
	loop := controller.New(control, source, server)
	listeners, err := listen(runDir, opts.Admin)
	if err != nil {
		return err
	}
	logger.Info("lbctl starts", "version", version, "nginx", server.Build().Version,
		"state_dir", opts.StateDir, "run_dir", runDir, "admin", orNone(opts.Admin), "endpoints_by_reload", byReload, "few_workers", fewWorkers)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return beFrugal(ctx, opts.Environ) })
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return loop.Run(ctx) })
	if byReload == "" {
		group.Go(func() error { return responder.Run(ctx) })
	}
	group.Go(func() error {
		api := &admin.Server{Controller: loop, Services: table, Generations: server, Logger: logger}
		return api.Run(ctx, listeners...)
	})
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		logger.Info("lbctl ends; nginx goes on serving")
	}
	return err
}

// listen opens the API's listeners. It comes before the first goroutine: the
// mode of the socket is set by the process's umask.
func listen(runDir, address string) ([]net.Listener, error) {
	socket, err := admin.ListenUnix(filepath.Join(runDir, socketName))
	if err != nil {
		return nil, err
	}
	if address == "" {
		return []net.Listener{socket}, nil
	}
	tcp, err := admin.ListenTCP(address)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return []net.Listener{socket, tcp}, nil
}

// reservedPorts are those that no TCP service can have nginx listen on.
func reservedPorts(address string) []int {
	number, err := strconv.Atoi(port(address))
	if err != nil {
		return nil
	}
	return []int{number}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func newLogger(opts *runOptions) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(opts.LogLevel)) // the flag takes no others
	options := &slog.HandlerOptions{Level: level}
	if opts.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(opts.Err, options))
	}
	return slog.New(slog.NewTextHandler(opts.Err, options))
}

// quiet is for work that a command's result tells all about.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// warnOfUnknown finds variables that look as if they were meant for lbctl, but
// are none of its own: a mistyped one would go unnoticed.
func warnOfUnknown(logger *slog.Logger, opts *runOptions) {
	for _, line := range opts.Environ {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "LBCTL_") && !slices.Contains(opts.Known, name) {
			logger.Warn("unknown environment variable", "name", name, "known", strings.Join(opts.Known, " "))
		}
	}
}
