package render

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"lbctl/internal/accesslog"
	"lbctl/internal/certificates"
	"lbctl/internal/nginx"
	"lbctl/internal/policy"
	"lbctl/internal/resolver"
)

// maxWorkerConnections limits the connections of a worker. nginx allocates the memory for
// them when a worker starts: about 7 MiB.
const maxWorkerConnections = 16384

// reservedFiles is the number of descriptors that a worker needs besides connections: logs,
// epoll, and the channels to the master and to each other worker.
const reservedFiles = 64

// Settings has the values for templates that are not in Consul. Templates get them from
// the function settings.
type Settings struct {
	// Listeners are where clients connect; default PlainListeners at their default addresses.
	// Those with TLS exist while there is a certificate.
	Listeners []Listener
	// Certificates are those for the listeners with TLS. A Source with Options.Certificates
	// sets them.
	Certificates certificates.Set
	// Health says which requests for the health of services lbctl answers; default none.
	Health Health
	// TrustedProxies are the networks of proxies in front of nginx, in CIDR form. nginx believes
	// what they say about the address of a client.
	TrustedProxies []string
	Workers        int // worker processes; default DefaultWorkers
	// MaxConnsPerClient bounds the requests, gRPC calls and TCP connections that one
	// client address may have at a time, for each of the three; 0 is no bound.
	MaxConnsPerClient int
	OpenFiles         int // descriptors of a worker; default the hard limit, at most 1048576
	// BootstrapDir is the directory of the bootstrap servers: an absolute path, needed only
	// with Resolver.
	BootstrapDir string
	// CurrentDir is the directory of the generation that nginx serves, by its link; default
	// "current" beside RunDir. nginx reads pages from it.
	CurrentDir string
	RunDir     string // absolute; where nginx keeps its pid file, error log and temporary files
	// AccessLogDir is the directory where nginx logs requests for lbctl, an absolute path on a
	// tmpfs; empty: nginx logs none.
	AccessLogDir string
	// LogRequests has nginx log all requests, and not only those to services with a circuit
	// breaker. It needs AccessLogDir.
	LogRequests bool
	// InFlight has nginx also log when a request to a service begins. It needs LogRequests.
	InFlight bool
	// Tracing has nginx continue or begin a trace for each request, and pass it on in headers.
	// Without it, those of clients pass unchanged.
	Tracing bool
	// TraceSample is the share of the traces beginning at nginx that are sampled: 0, or 0.0001 to 1.
	TraceSample float64
	User        string // user of the workers; empty without root, because nginx can't change it then
	Group       string // group of the workers; empty for the group with the name of the user
	// WorkerCPUAffinity is nginx's directive of that name: "auto" keeps each worker
	// on a core of its own; empty leaves it to the kernel.
	WorkerCPUAffinity string
	// Marks says when nginx itself considers an instance failed; default never.
	Marks nginx.Marks
	// NginxVersion is the version of the nginx that gets the configuration,
	// for example "1.30.6".
	NginxVersion string
	// Resolver is the address and port where nginx asks for the servers of its
	// upstreams; empty when they are written into its files.
	Resolver string
	// OwnAddresses has the other addresses and ports where lbctl listens, such as those of
	// its API: no service can have them.
	OwnAddresses []string
	// StreamModule is the path of nginx's stream module, empty when it is
	// built in, nginx.NoStream when there is none: TCP services are then not served.
	StreamModule string
}

// with returns the settings with other certificates.
func (s Settings) with(set certificates.Set) Settings {
	s.Certificates = set
	return s
}

// RunFile is the path of a file in the run directory.
func (s Settings) RunFile(name string) string { return filepath.Join(s.RunDir, name) }

// WorkerConnections is how many connections a worker may have, to clients and to
// instances together. It leaves descriptors for everything else that a worker opens.
func (s Settings) WorkerConnections() int {
	reserved := reservedFiles + 2*s.Workers
	return min(maxWorkerConnections, max(s.OpenFiles-reserved, s.OpenFiles/2))
}

// ConnectTimeout is the built-in timeout.connect, for operators' own templates.
func (s Settings) ConnectTimeout() (string, error) {
	return policy.Default(policy.HTTP, "timeout.connect")
}

// AccessLogFormat returns the arguments of nginx's directive log_format.
func (s Settings) AccessLogFormat() string { return accesslog.FormatName + " " + accesslog.Format() }

// StartLogFormat is AccessLogFormat for requests that begin.
func (s Settings) StartLogFormat() string {
	return accesslog.StartFormatName + " " + accesslog.StartFormat()
}

// SessionLogFormat is AccessLogFormat for the sessions of TCP services.
func (s Settings) SessionLogFormat() string {
	return accesslog.FormatName + " " + accesslog.SessionFormat()
}

// AccessLog returns the arguments of nginx's directive access_log for requests and sessions
// that lbctl is to see. There must be an AccessLogDir.
func (s Settings) AccessLog() (string, error) { return s.logTo(accesslog.FormatName) }

// StartLog is AccessLog for requests that begin.
func (s Settings) StartLog() (string, error) { return s.logTo(accesslog.StartFormatName) }

func (s Settings) logTo(format string) (string, error) {
	path, err := nginx.Quote(accesslog.Path(s.AccessLogDir))
	return path + " " + format + " " + accesslog.Buffering, err
}

// TraceShare is TraceSample as nginx's directive split_clients wants it, "12.5%"; empty for none
// and for all.
func (s Settings) TraceShare() string {
	if s.TraceSample <= 0 || s.TraceSample >= 1 {
		return ""
	}
	return strconv.FormatFloat(math.Round(s.TraceSample*1e4)/100, 'f', -1, 64) + "%"
}

// ResolverTimeout returns the value of nginx's directive resolver_timeout: how long nginx waits
// for an answer about servers. It is resolver.Timeout.
func (s Settings) ResolverTimeout() string {
	return strconv.Itoa(int(resolver.Timeout.Seconds())) + "s"
}

// LoadStream reports whether the stream module has to be loaded.
func (s Settings) LoadStream() bool { return s.StreamModule != "" && s.HasStream() }

// HasStream reports whether nginx can serve plain TCP.
func (s Settings) HasStream() bool { return s.StreamModule != nginx.NoStream }

// TCPListen returns where a TCP service listens: at the addresses of the listener grpc, or of the
// first one if there is no such listener.
func (s Settings) TCPListen(port int) Listen {
	if l, ok := s.listener(ListenerGRPC); ok {
		return l.Listen.at(port)
	}
	return s.Listeners[0].Listen.at(port)
}

var userPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// complete fills in the defaults. Its error names all invalid settings.
func (s Settings) complete() (Settings, error) {
	if len(s.Listeners) == 0 {
		s.Listeners = PlainListeners(DefaultGRPCListen, DefaultHTTPListen)
	}
	if s.CurrentDir == "" {
		s.CurrentDir = filepath.Join(filepath.Dir(s.RunDir), "current")
	}
	if s.Workers == 0 {
		s.Workers, _ = DefaultWorkers(s.NginxVersion)
	}
	if s.OpenFiles == 0 {
		s.OpenFiles = openFilesLimit()
	}
	var errs []error
	bad := func(what string, found any, want string) {
		errs = append(errs, fmt.Errorf("%s %q, want %s", what, fmt.Sprint(found), want))
	}
	errs = append(errs, CheckListeners(s.Listeners, s.TrustedProxies)...)
	s.Listeners = slices.Clone(s.Listeners)
	for n := range s.Listeners {
		s.Listeners[n].Listen = s.Listeners[n].Listen.each()
	}
	for _, network := range s.TrustedProxies {
		if _, err := netip.ParsePrefix(network); err != nil {
			bad("trusted proxies", network, `networks like "10.0.0.0/8"`)
		}
	}
	if s.Resolver != "" {
		if a, err := netip.ParseAddrPort(s.Resolver); err != nil || a.Port() == 0 {
			bad("resolver", s.Resolver, `ADDRESS:PORT like "127.0.0.1:9153"`)
		}
		if err := CanResolve(s.NginxVersion); err != nil {
			errs = append(errs, err)
		}
		if _, err := nginx.Quote(s.BootstrapDir); err != nil || !filepath.IsAbs(s.BootstrapDir) {
			bad("directory of bootstrap servers", s.BootstrapDir, `an absolute path without "$" and control characters`)
		}
	}
	errs = append(errs, s.Health.check()...)
	if s.Workers < 1 || s.Workers > 1024 {
		bad("workers", s.Workers, "1 to 1024")
	}
	if s.WorkerCPUAffinity != "" && s.WorkerCPUAffinity != "auto" {
		bad("worker CPU affinity", s.WorkerCPUAffinity, `"auto" or nothing`)
	}
	if err := CheckTraceSample(s.TraceSample); err != nil {
		errs = append(errs, err)
	}
	if s.OpenFiles < 64 {
		bad("open files", s.OpenFiles, "64 or more")
	}
	for what, path := range map[string]string{"run directory": s.RunDir, "stream module": s.StreamModule, "directory of the access log": s.AccessLogDir} {
		if what == "stream module" && !s.LoadStream() || what == "directory of the access log" && path == "" {
			continue
		}
		if _, err := nginx.Quote(path); err != nil || !filepath.IsAbs(path) {
			bad(what, path, `an absolute path without "$" and control characters`)
		}
	}
	if s.User != "" && !userPattern.MatchString(s.User) {
		bad("user", s.User, "the name of a user")
	}
	if s.Group != "" && !userPattern.MatchString(s.Group) {
		bad("group", s.Group, "the name of a group")
	}
	if _, err := nginx.AtLeast(s.NginxVersion, s.NginxVersion); err != nil {
		bad("nginx version", s.NginxVersion, `three numbers like "1.30.6"`)
	}
	return s, errors.Join(errs...)
}

// leastTraceSample is the smallest share that nginx can tell from none.
const leastTraceSample = 0.0001

// CheckTraceSample checks a Settings.TraceSample.
func CheckTraceSample(share float64) error {
	if share == 0 || share >= leastTraceSample && share <= 1 {
		return nil
	}
	return fmt.Errorf("share of sampled traces %v, want 0, or %v to 1", share, leastTraceSample)
}

// DefaultWorkers returns the default number of worker processes: as many as the cores that
// this process may use. For an nginx before nginx.ManyWorkersSince it is one, and why says
// so; otherwise why is empty.
//
// At a reload an old worker asks its clients to reconnect. If there are several old
// workers, some clients reconnect to another one, milliseconds before it stops too. A gRPC
// client retries a call once, so a call that two workers turn away fails. An older nginx
// may also lose track of the new connection, which then stays with the instances from
// before the reload. A single worker has closed its listeners before it asks its clients
// to reconnect.
func DefaultWorkers(nginxVersion string) (n int, why string) {
	if enough, err := nginx.AtLeast(nginxVersion, nginx.ManyWorkersSince); err == nil && !enough {
		return 1, fmt.Sprintf("nginx %s can fail gRPC calls at reloads when it has more, want %s or later", nginxVersion, nginx.ManyWorkersSince)
	}
	return runtime.GOMAXPROCS(0), ""
}

func openFilesLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // every system allows that many
	}
	return int(min(limit.Max, 1<<20))
}
