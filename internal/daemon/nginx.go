package daemon

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"lbctl/internal/accesslog"
	"lbctl/internal/certificates"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// The values of NginxConfig.Endpoints.
const (
	EndpointsAuto   = "auto"
	EndpointsDNS    = "dns"
	EndpointsReload = "reload"
)

// The values of NginxConfig.CPUAffinity.
const (
	AffinityOff  = "off"
	AffinityAuto = "auto"
)

// The values of NginxConfig.AccessLog.
const (
	AccessLogOn  = "on"
	AccessLogOff = "off" // only requests to services with a circuit breaker are logged
)

// The values of NginxConfig.InFlight.
const (
	InFlightOn  = "on"
	InFlightOff = "off"
)

// NginxConfig has the settings of nginx. The daemon uses it, and so do the commands that
// render a configuration without the daemon.
type NginxConfig struct {
	Binary    string // nginx executable; default nginx on PATH
	Templates string // directory of templates that replace the built-in ones; default none

	GRPCListen render.Listen // addresses for gRPC; default render.DefaultGRPCListen
	HTTPListen render.Listen // addresses for HTTP; default render.DefaultHTTPListen

	// Listeners are further listeners. One with the name of a listener that exists without it
	// replaces that one; one without a Protocol removes it.
	Listeners      []render.Listener
	TrustedProxies []string // networks of proxies, in CIDR form; default none
	Certificates   string   // directory with certificates for the listeners with TLS; default none

	Workers     int    // worker processes; default render.DefaultWorkers
	CPUAffinity string // AffinityAuto or AffinityOff; default AffinityOff
	OpenFiles   int    // open files per worker; default the hard limit
	// AccessLog is AccessLogOn or AccessLogOff; default AccessLogOn.
	AccessLog string
	// AccessLogDir is the directory of nginx's access log, on a tmpfs; default the run directory
	// if that is on one, or else none.
	AccessLogDir string
	// AccessLogSize is how many bytes the access log may need while lbctl does not read it, see
	// accesslog.Options.Size; default accesslog.DefaultSize.
	AccessLogSize int64
	// InFlight is InFlightOn or InFlightOff: whether the requests in flight are counted by service.
	// It needs AccessLogOn. Default InFlightOff.
	InFlight string
	// Traces has the settings of traces. They need AccessLogOn.
	Traces TracingConfig
	User   string // user of the workers if lbctl runs as root; default nginx, www-data or nobody

	HealthPath     string   // HealthAuto, HealthNone or a path; default HealthNone
	GRPCHealth     string   // HealthAuto, HealthOn or HealthOff; default HealthOff
	HealthNetworks []string // networks that may ask for the health of services; default all

	MaxConnsPerClient int // concurrent requests, calls or connections per client address; default no limit

	Marks nginx.Marks // when nginx itself skips a failing instance; default never

	Endpoints string // delivery of servers to nginx; default EndpointsAuto
	DNSListen string // address of lbctl's DNS server for nginx; default resolver.DefaultListen
}

// byReload says why servers are delivered by reload, or "" if they are delivered by DNS.
// It fails if Endpoints is EndpointsDNS and nginx does not support it.
func (n NginxConfig) byReload(build nginx.Build) (string, error) {
	if n.Endpoints == EndpointsReload {
		return "--endpoints is reload", nil
	}
	err := render.CanResolve(build.Version)
	switch {
	case err == nil:
		return "", nil
	case n.Endpoints == EndpointsDNS:
		return "", fmt.Errorf("--endpoints %q: %w, or --endpoints %s", n.Endpoints, err, EndpointsAuto)
	default:
		return err.Error(), nil
	}
}

// AllListeners returns the listeners: gRPC and HTTP, the same with TLS if there is a directory
// with certificates, and Listeners.
func (n NginxConfig) AllListeners() []render.Listener {
	grpc, http := n.GRPCListen, n.HTTPListen
	if len(grpc) == 0 {
		grpc = render.DefaultGRPCListen
	}
	if len(http) == 0 {
		http = render.DefaultHTTPListen
	}
	all := render.PlainListeners(grpc, http)
	if n.Certificates != "" {
		all = append(all, render.TLSListeners()...)
	}
	for _, l := range n.Listeners {
		at := slices.IndexFunc(all, func(other render.Listener) bool { return other.Name == l.Name })
		switch {
		case l.Protocol == "" && at >= 0:
			all = slices.Delete(all, at, at+1)
		case l.Protocol == "":
		case at >= 0:
			all[at] = l
		default:
			all = append(all, l)
		}
	}
	return all
}

// OpenCertificates opens the certificates of the listeners with TLS, and those that policies name.
// With readOnly no copies are made. settings are those of Settings.
func (n NginxConfig) OpenCertificates(stateDir string, settings render.Settings, readOnly bool) (*certificates.Store, error) {
	opts := certificates.Options{
		Dir:      n.Certificates,
		Copies:   CertificatesDir(stateDir),
		Group:    -1,
		ReadOnly: readOnly,
	}
	if dir, err := filepath.EvalSymlinks(n.Certificates); n.Certificates != "" && err == nil && !readOnly {
		if copies, err := filepath.EvalSymlinks(opts.Copies); err == nil && dir == copies {
			return nil, fmt.Errorf("--certificates %s is the directory of lbctl's own copies, want another one", n.Certificates)
		}
	}
	if settings.User != "" {
		found, err := user.Lookup(settings.User)
		if err != nil {
			return nil, fmt.Errorf("find the group of nginx's workers: %w", err)
		}
		if opts.Group, err = strconv.Atoi(found.Gid); err != nil {
			return nil, fmt.Errorf("find the group of nginx's workers: user %s has the group %q, want a number", settings.User, found.Gid)
		}
	}
	return certificates.Open(opts)
}

// Settings returns the settings of nginx and of the machine for the templates. It fails
// if nginx does not support Endpoints, or if the machine does not have User.
func (n NginxConfig) Settings(stateDir, runDir string, build nginx.Build) (render.Settings, error) {
	byReload, err := n.byReload(build)
	if err != nil {
		return render.Settings{}, err
	}
	settings := render.Settings{
		Listeners:      n.AllListeners(),
		TrustedProxies: n.TrustedProxies,
		Workers:        n.Workers,
		OpenFiles:      n.OpenFiles,
		Marks:          n.Marks,
		Health:         n.health(),

		MaxConnsPerClient: n.MaxConnsPerClient,
		CurrentDir:        nginx.CurrentDir(stateDir),
		RunDir:            runDir,
		NginxVersion:      build.Version,
		StreamModule:      build.StreamModule,
		AccessLogDir:      n.AccessLogDir,
	}
	if settings.AccessLogDir == "" && accesslog.InMemory(runDir) == nil {
		settings.AccessLogDir = runDir
	}
	settings.LogRequests = settings.AccessLogDir != "" && n.AccessLog != AccessLogOff
	settings.InFlight = n.InFlight == InFlightOn && settings.LogRequests
	settings.Tracing, settings.TraceSample = n.Traces.on() && settings.LogRequests, n.Traces.Sample
	if n.CPUAffinity == AffinityAuto {
		settings.WorkerCPUAffinity = AffinityAuto
	}
	if byReload == "" {
		settings.Resolver, settings.BootstrapDir = n.DNSListen, nginx.BootstrapDir(stateDir)
	}
	if os.Geteuid() != 0 {
		return settings, nil // nginx can't change its workers' user
	}
	for _, name := range []string{cmp.Or(n.User, "nginx"), cmp.Or(n.User, "www-data"), cmp.Or(n.User, "nobody")} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		settings.User = name
		// nginx's default is the group with the name of the user, which does not exist
		// for nobody on Debian.
		if group, err := user.LookupGroupId(found.Gid); err == nil {
			settings.Group = group.Name
		}
		return settings, nil
	}
	return settings, fmt.Errorf("user %s of nginx's workers does not exist: choose another one with --nginx-user or LBCTL_NGINX_USER",
		cmp.Or(n.User, "nginx, www-data or nobody"))
}

// workersUser returns the id of the user of nginx's workers; -1 if that is lbctl's own.
func workersUser(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("find the user of nginx's workers: %w", err)
	}
	id, err := strconv.Atoi(found.Uid)
	if err != nil {
		return 0, fmt.Errorf("find the user of nginx's workers: user %s has the id %q, want a number", name, found.Uid)
	}
	return id, nil
}
