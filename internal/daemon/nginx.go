package daemon

import (
	"cmp"
	"fmt"
	"os"
	"os/user"

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

// NginxConfig says which nginx is configured, and how. The daemon and the commands
// that render a configuration without it share it.
type NginxConfig struct {
	Binary    string // nginx's program; default nginx on PATH
	Templates string // directory of templates that replace the built-in ones; default none

	GRPCListen render.Listen // where nginx takes gRPC; default render.DefaultGRPCListen
	HTTPListen render.Listen // where nginx takes HTTP; default render.DefaultHTTPListen

	Workers     int    // worker processes; default render.DefaultWorkers
	CPUAffinity string // AffinityAuto or AffinityOff; default AffinityOff
	OpenFiles   int    // files that a worker may have open; default the hard limit
	User        string // who the workers run as if lbctl is root; default nginx, www-data or nobody

	MaxConnsPerClient int // requests, calls or connections of a client address at a time; default no bound

	Marks nginx.Marks // when nginx itself takes an instance for failed; default never

	Endpoints string // how changes of instances reach nginx; default EndpointsAuto
	DNSListen string // where lbctl answers nginx's questions; default resolver.DefaultListen
}

// byReload says why nginx doesn't ask for servers, "" when it does. The error is
// for an operator who wants it to and an nginx that can't.
func (n NginxConfig) byReload(build nginx.Build) (string, error) {
	if n.Endpoints == EndpointsReload {
		return "--endpoints says so", nil
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

// Settings are what the templates get to know of nginx and of the machine. They
// fail where nginx can't do what Endpoints asks for, or no User is found.
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
		// Left to itself nginx takes the group called as the user, and Debian's
		// nobody has none.
		if group, err := user.LookupGroupId(found.Gid); err == nil {
			settings.Group = group.Name
		}
		return settings, nil
	}
	return settings, fmt.Errorf("no user %s for nginx's workers: say which one with --nginx-user or LBCTL_NGINX_USER",
		cmp.Or(n.User, "nginx, www-data or nobody"))
}
