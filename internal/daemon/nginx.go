package daemon

import (
	"cmp"
	"fmt"
	"os"
	"os/user"

	"lbctl/internal/accesslog"
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

// NginxConfig has the settings of nginx. The daemon uses it, and so do the commands that
// render a configuration without the daemon.
type NginxConfig struct {
	Binary    string // nginx executable; default nginx on PATH
	Templates string // directory of templates that replace the built-in ones; default none

	GRPCListen render.Listen // addresses for gRPC; default render.DefaultGRPCListen
	HTTPListen render.Listen // addresses for HTTP; default render.DefaultHTTPListen

	Workers     int    // worker processes; default render.DefaultWorkers
	CPUAffinity string // AffinityAuto or AffinityOff; default AffinityOff
	OpenFiles   int    // open files per worker; default the hard limit
	// AccessLogDir is the directory of nginx's access log, on a tmpfs; default the run directory
	// if that is on one, or else none.
	AccessLogDir string
	User         string // user of the workers if lbctl runs as root; default nginx, www-data or nobody

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

// Settings returns the settings of nginx and of the machine for the templates. It fails
// if nginx does not support Endpoints, or if the machine does not have User.
func (n NginxConfig) Settings(stateDir, runDir string, build nginx.Build) (render.Settings, error) {
	byReload, err := n.byReload(build)
	if err != nil {
		return render.Settings{}, err
	}
	settings := render.Settings{
		GRPCListen: n.GRPCListen,
		HTTPListen: n.HTTPListen,
		Workers:    n.Workers,
		OpenFiles:  n.OpenFiles,
		Marks:      n.Marks,

		MaxConnsPerClient: n.MaxConnsPerClient,
		RunDir:            runDir,
		NginxVersion:      build.Version,
		StreamModule:      build.StreamModule,
		AccessLogDir:      n.AccessLogDir,
	}
	if settings.AccessLogDir == "" && accesslog.InMemory(runDir) == nil {
		settings.AccessLogDir = runDir
	}
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
