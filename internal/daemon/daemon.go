// Package daemon implements 'lbctl run': it makes the parts from a Config, connects
// them, and runs them until its context is done.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"lbctl/internal/access"
	"lbctl/internal/accesslog"
	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/instances"
	"lbctl/internal/kv"
	"lbctl/internal/nginx"
	"lbctl/internal/outlier"
	"lbctl/internal/probe"
	"lbctl/internal/render"
	"lbctl/internal/requestlog"
	"lbctl/internal/resolver"
	"lbctl/internal/tracing"
	"lbctl/internal/traffic"
)

// DefaultStateDir is the default of Config.StateDir.
const DefaultStateDir = "/var/lib/lbctl"

// Config has the operator's settings. Zero settings in Table, Probe, Controller and
// Server have the defaults of their packages.
type Config struct {
	// StateDir holds generations, history and the endpoint snapshot. Required.
	StateDir string
	// RunDir holds sockets, nginx's pid file and its error log; default
	// StateDir/run.
	RunDir string
	// Admin is the address of the read-only HTTP API, such as
	// admin.DefaultAddress; default none: the unix socket only.
	Admin string
	// AllowedHosts are further host names that the HTTP API accepts, see admin.Server;
	// default none.
	AllowedHosts []string
	// KVPrefix begins the keys of the operator's documents in Consul, see kv.CheckPrefix.
	KVPrefix string
	// Nginx has the settings of nginx.
	Nginx NginxConfig
	// Server has the settings of generations: Keep and VerifyTimeout. Run sets the
	// other fields.
	Server nginx.Options
	// Table has the settings of the endpoint table. Run sets Logger.
	Table endpoints.Options
	// Probe has the settings of lbctl's own probes. Run sets Logger.
	Probe probe.Options
	// Controller has the settings of the loop: SettleMin and SettleMax. Run sets the
	// other fields.
	Controller controller.Options
	// RequestLog has the settings of the log of requests and control events: Memory, Sample and
	// Slow. Run sets the other fields.
	RequestLog requestlog.Options
	// RequestLogTo is where each line of that log goes: RequestLogStdout; default RequestLogOff.
	RequestLogTo string
	// MetricsLinger is how long the metrics of requests stay after their service or instance has
	// gone; default traffic.DefaultLinger.
	MetricsLinger time.Duration
	// Version is the version of lbctl, for status and log.
	Version string
	// Environ has lines NAME=value. GOGC and GOMAXPROCS in it override the daemon's own
	// limits; default none.
	Environ []string
	// Logger is required.
	Logger *slog.Logger
}

// RunDir is the directory of a daemon's sockets: runDir, or if that is "" the directory
// run in stateDir.
func RunDir(stateDir, runDir string) string {
	if runDir == "" {
		return filepath.Join(stateDir, "run")
	}
	return runDir
}

// SocketPath is the unix socket of a daemon's API.
func SocketPath(runDir string) string { return filepath.Join(runDir, "admin.sock") }

// Run runs the daemon until ctx is done, and returns nil then. It returns an error
// at once if another daemon uses one of the directories, if nginx or a template can't
// be used, or if an address is in use. nginx itself keeps running in any case. Call
// SurviveBrokenPipe before it.
func Run(ctx context.Context, cfg Config) error {
	hangups := make(chan os.Signal, 1) // keeps a signal that comes during the start
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	cfg.RunDir = RunDir(cfg.StateDir, cfg.RunDir)
	if err := makeDirectories(cfg.StateDir, cfg.RunDir); err != nil {
		return err
	}
	// Take the locks before touching files that another daemon may use.
	for _, dir := range []string{cfg.RunDir, cfg.StateDir} {
		held, err := lock(filepath.Join(dir, "lock"))
		if err != nil {
			return err
		}
		defer held.Close()
	}
	p, err := newParts(cfg)
	if err != nil {
		return err
	}
	listeners, err := listen(cfg.RunDir, cfg.Admin)
	if err != nil {
		return err
	}
	answers, err := access.Listen(filepath.Join(cfg.RunDir, render.AuthSocket), p.workers)
	if err != nil {
		return err
	}
	if p.health, err = listenHealth(cfg, p.workers); err != nil {
		return err
	}
	cfg.Logger.Info("lbctl starts", append([]any{"version", cfg.Version, "nginx", p.server.Build().Version,
		"state_dir", cfg.StateDir, "run_dir", cfg.RunDir, "admin", orNone(cfg.Admin)}, p.limits()...)...)
	if p.sharedUser {
		cfg.Logger.Info("nginx's workers run as lbctl's own user, so an attacker who takes over a worker can control lbctl; run lbctl and nginx as root to give the workers their own user")
	}
	if err := p.run(ctx, cfg, listeners, answers, hangups); err != nil {
		return err
	}
	if _, err := p.server.Processes(); errors.Is(err, nginx.ErrNotRunning) {
		cfg.Logger.Info("lbctl ends; nginx is not running")
		return nil
	}
	cfg.Logger.Info("lbctl ends; nginx keeps serving")
	return nil
}

// parts are the parts of the daemon.
type parts struct {
	resolver  *resolver.Server
	server    *nginx.Instance
	table     *endpoints.Table
	source    *render.Source
	loop      *controller.Controller
	log       *accesslog.Reader // nil: nginx has no access log
	outliers  *outlier.Detector
	traffic   *traffic.Counters
	traces    *tracing.Exporter // nil: there are no traces
	instances *instances.Index
	requests  *requestlog.Log
	// readers get each line of the access log, in order.
	readers []func(*accesslog.Record)

	byReload   string // why nginx doesn't ask the resolver; "" if it does
	fewWorkers string // why nginx has fewer workers than it could; "" if it doesn't
	sharedUser bool   // nginx's workers run as lbctl's user
	workers    int    // user id of nginx's workers; -1: lbctl's own
	keeper     *access.Keeper
	answerer   *access.Answerer // tells nginx whether requests may pass
	health     healthListeners
}

// limits returns what nginx can't do and why, for the log.
func (p *parts) limits() (attributes []any) {
	if p.byReload != "" {
		attributes = append(attributes, "endpoints_by_reload", p.byReload)
	}
	if p.fewWorkers != "" {
		attributes = append(attributes, "few_workers", p.fewWorkers)
	}
	return attributes
}

func newParts(cfg Config) (*parts, error) {
	p := &parts{resolver: resolver.New(cfg.Logger)}
	var err error
	if p.server, err = nginx.New(serverOptions(cfg, p.resolver)); err != nil {
		return nil, err
	}
	build := p.server.Build()
	if p.byReload, err = cfg.Nginx.byReload(build); err != nil {
		return nil, err
	}
	settings, err := cfg.Nginx.Settings(cfg.StateDir, cfg.RunDir, build)
	if err != nil {
		return nil, err
	}
	p.sharedUser = settings.User == ""
	if p.workers, err = workersUser(settings.User); err != nil {
		return nil, err
	}
	settings.OwnAddresses = []string{cfg.Admin}
	if settings.Workers == 0 {
		_, p.fewWorkers = render.DefaultWorkers(settings.NginxVersion)
	}
	if p.table, err = openTable(cfg); err != nil {
		return nil, err
	}
	shown, err := cfg.Nginx.OpenCertificates(cfg.StateDir, settings, false)
	if err != nil {
		return nil, err
	}
	if p.keeper, err = openAccess(cfg); err != nil {
		return nil, err
	}
	p.answerer = access.NewAnswerer(p.keeper)
	cfg.Probe.Logger = cfg.Logger
	p.source, err = render.New(render.Options{
		Settings:     settings,
		Policies:     kv.PolicyPrefix(cfg.KVPrefix),
		TemplatesDir: cfg.Nginx.Templates,
		Certificates: shown,
		Table:        p.table,
		Access:       p.keeper,
		AccessKeys:   kv.AccessPrefix(cfg.KVPrefix),
		Probe:        cfg.Probe,
		Logger:       cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	p.outliers = outlier.New(p.table, p.source.Addresses)
	p.readers = append(p.readers, p.outliers.Take)
	p.newTraffic(cfg.MetricsLinger)
	p.instances = instances.New(p.table, p.source.Addresses)
	if err := p.newTracing(cfg, settings); err != nil {
		return nil, err
	}
	p.newRequestLog(cfg, settings)
	if err := p.openAccessLog(cfg, settings); err != nil {
		return nil, err
	}
	control := controllerOptions(cfg, p)
	if p.byReload == "" {
		if err := p.resolver.Listen(cfg.Nginx.DNSListen); err != nil {
			return nil, fmt.Errorf("%w; choose another address with --dns-listen", err)
		}
		control.Endpoints = p.resolver
	}
	p.loop = controller.New(control, p.source, p.server)
	return p, nil
}

func serverOptions(cfg Config, answers *resolver.Server) nginx.Options {
	opts := cfg.Server
	opts.StateDir, opts.RunDir = cfg.StateDir, cfg.RunDir
	opts.Binary = cfg.Nginx.Binary
	opts.Resolver = answers
	opts.Logger = cfg.Logger
	return opts
}

func controllerOptions(cfg Config, p *parts) controller.Options {
	opts := cfg.Controller
	opts.StateDir = cfg.StateDir
	opts.Version = cfg.Version
	opts.PolicyKeys, opts.AccessKeys = kv.PolicyPrefix(cfg.KVPrefix), kv.AccessPrefix(cfg.KVPrefix)
	opts.EndpointsNote = p.byReload
	opts.Marks = cfg.Nginx.Marks
	opts.WorkersNote = p.fewWorkers
	opts.Recorded = p.requests.Event
	opts.Logger = cfg.Logger
	return opts
}

// openTable opens the table with the endpoint snapshot of an earlier daemon.
func openTable(cfg Config) (*endpoints.Table, error) {
	opts := cfg.Table
	opts.Logger = cfg.Logger
	table, err := endpoints.Open(filepath.Join(cfg.StateDir, "endpoints.json"), opts)
	if errors.Is(err, endpoints.ErrSnapshot) {
		cfg.Logger.Warn("all or part of the endpoint snapshot can't be used", "reason", err)
		return table, nil
	}
	return table, err
}

// openAccess opens the keeper of access rules and keys with the snapshot of an earlier daemon.
func openAccess(cfg Config) (*access.Keeper, error) {
	keeper, err := access.Open(filepath.Join(cfg.StateDir, "access.json"))
	if errors.Is(err, access.ErrSnapshot) {
		cfg.Logger.Warn("the snapshot of access rules and keys can't be used", "reason", err)
		return keeper, nil
	}
	return keeper, err
}

// run runs all parts until ctx is done or one of them fails.
func (p *parts) run(ctx context.Context, cfg Config, listeners []net.Listener, answers net.Listener, hangups <-chan os.Signal) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return limitRuntime(ctx, cfg.Environ) })
	group.Go(func() error { return p.source.Run(ctx) })
	group.Go(func() error { return reloadOn(ctx, hangups, p.source, p.loop.Reread, cfg.Logger) })
	group.Go(func() error { return p.loop.Run(ctx) })
	group.Go(func() error { return p.answerer.Run(ctx, answers) })
	group.Go(func() error { return p.runHealth(ctx, cfg) })
	if p.byReload == "" {
		group.Go(func() error { return p.resolver.Run(ctx) })
	}
	group.Go(func() error { return p.traffic.Run(ctx) })
	group.Go(func() error { return p.requests.Run(ctx) })
	if p.log != nil {
		reading, endReading := context.WithCancel(context.WithoutCancel(ctx))
		group.Go(func() error {
			defer endReading()
			return p.readAccessLog(ctx)
		})
		group.Go(func() error { return p.outliers.Run(ctx) })
		if p.traces != nil {
			group.Go(func() error { return p.traces.Run(reading) }) // also the spans of the last lines
		}
	}
	page := p.newPage(cfg)
	group.Go(func() error { return page.Run(ctx) })
	group.Go(func() error {
		api := &admin.Server{
			Controller: p.loop, Services: p.table, Generations: p.server, Catalog: p.source,
			Denies: p.denies, Denials: p.denials, Authenticates: p.answerer.Answer, AllowedHosts: cfg.AllowedHosts, Logger: cfg.Logger,
			Handlers: p.handlers(cfg, page),
		}
		return api.Run(ctx, listeners...)
	})
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// denies says why an address can't use a service; "" if it can. The zero address stands for all
// that have no rule of their own.
func (p *parts) denies(address netip.Addr, service string) string {
	networks := p.keeper.Networks(time.Now())
	rule, _, denied := networks.Decide(address, service)
	if !address.IsValid() {
		rule, denied = networks.DecideForAll(service)
	}
	if !denied {
		return ""
	}
	why := access.NetworkText(rule.Network) + " is denied"
	if rule.Service != "" {
		why += " for " + rule.Service
	}
	if rule.By != "" {
		why += " by " + rule.By
	}
	if rule.Why != "" {
		why += ": " + rule.Why
	}
	return why
}

// denials returns how many rules deny networks the use of a service.
func (p *parts) denials(service string) int { return p.keeper.Networks(time.Now()).Denials(service) }

// listen opens the API's listeners. It must run before the first goroutine, because
// it changes the umask of the process to set the mode of the socket.
func listen(runDir, address string) ([]net.Listener, error) {
	socket, err := admin.ListenUnix(SocketPath(runDir))
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

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
