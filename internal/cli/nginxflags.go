package cli

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"regexp"

	"lbctl/internal/nginx"
	"lbctl/internal/render"
)

// renderFlags are what a configuration is made from besides Consul. The daemon
// and the commands that render without it share them.
type renderFlags struct {
	templates  string
	nginx      string
	grpcListen string
	httpListen string
	workers    int
	affinity   string
	openFiles  int
	user       string
	endpoints  string // how changes of servers reach nginx
	dnsListen  string
}

// The values of --endpoints.
const (
	endpointsAuto   = "auto"
	endpointsDNS    = "dns"
	endpointsReload = "reload"
)

// The values of --worker-cpu-affinity.
const (
	affinityOff  = "off"
	affinityAuto = "auto"
)

const (
	defaultGRPCListen = "0.0.0.0:5000"
	defaultHTTPListen = "0.0.0.0:8080"
	defaultDNSListen  = "127.0.0.1:9153"
)

func newRenderFlags(flags *flags) *renderFlags {
	r := new(renderFlags)
	define(flags, &r.templates, "templates", "LBCTL_TEMPLATES", "DIR",
		"templates that replace the built-in ones of the same name, and add to them", "", parseTemplates)
	define(flags, &r.nginx, "nginx", "LBCTL_NGINX", "PATH",
		"nginx's program (default nginx on PATH)", "", parseText)
	define(flags, &r.grpcListen, "grpc-listen", "LBCTL_GRPC_LISTEN", "ADDRESS:PORT",
		"where nginx takes gRPC", defaultGRPCListen, parseListen)
	define(flags, &r.httpListen, "http-listen", "LBCTL_HTTP_LISTEN", "ADDRESS:PORT",
		"where nginx takes HTTP", defaultHTTPListen, parseListen)
	define(flags, &r.workers, "workers", "LBCTL_WORKERS", "N",
		"nginx's worker processes (default the cores lbctl may use; 1 for an nginx older than 1.27.1)", 0, parseNumber(1, 1024))
	define(flags, &r.affinity, "worker-cpu-affinity", "LBCTL_WORKER_CPU_AFFINITY", "HOW",
		"auto keeps each of nginx's workers on a core of its own: for machines that are nginx's alone",
		affinityOff, parseChoice(affinityOff, affinityAuto))
	define(flags, &r.openFiles, "open-files", "LBCTL_OPEN_FILES", "N",
		"files a worker may have open (default the hard limit, at most 1048576)", 0, parseNumber(64, 1<<20))
	define(flags, &r.user, "nginx-user", "LBCTL_NGINX_USER", "NAME",
		"who nginx's workers run as when lbctl is root (default nginx, www-data or nobody)", "", parseUser)
	define(flags, &r.endpoints, "endpoints", "LBCTL_ENDPOINTS", "HOW",
		"how changes of instances reach nginx: reload, dns (nginx asks lbctl for them) or auto, which is dns where nginx can",
		endpointsAuto, parseChoice(endpointsAuto, endpointsDNS, endpointsReload))
	define(flags, &r.dnsListen, "dns-listen", "LBCTL_DNS_LISTEN", "ADDRESS:PORT",
		"where lbctl answers nginx's questions for instances, UDP and TCP", defaultDNSListen, parseListen)
	return r
}

// byReload says why nginx doesn't ask for servers, "" when it does. The error is
// for an operator who wants it to and an nginx that can't.
func (r *renderFlags) byReload(build nginx.Build) (string, error) {
	if r.endpoints == endpointsReload {
		return "--endpoints says so", nil
	}
	err := render.CanResolve(build.Version)
	switch {
	case err == nil:
		return "", nil
	case r.endpoints == endpointsDNS:
		return "", fmt.Errorf("--endpoints %q: %w, or --endpoints %s", r.endpoints, err, endpointsAuto)
	default:
		return err.Error(), nil
	}
}

// settings are what the templates get to know.
func (r *renderFlags) settings(stateDir, runDir string, build nginx.Build) (render.Settings, error) {
	byReload, err := r.byReload(build)
	if err != nil {
		return render.Settings{}, err
	}
	settings := render.Settings{
		GRPCListen:   r.grpcListen,
		HTTPListen:   r.httpListen,
		Workers:      r.workers,
		OpenFiles:    r.openFiles,
		RunDir:       runDir,
		NginxVersion: build.Version,
		StreamModule: build.StreamModule,
	}
	if r.affinity == affinityAuto {
		settings.WorkerCPUAffinity = affinityAuto
	}
	if byReload == "" {
		settings.Resolver, settings.SeedsDir = r.dnsListen, nginx.SeedsDir(stateDir)
	}
	if os.Geteuid() != 0 {
		return settings, nil // nginx can't change its workers' user
	}
	for _, name := range []string{cmp.Or(r.user, "nginx"), cmp.Or(r.user, "www-data"), cmp.Or(r.user, "nobody")} {
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
		cmp.Or(r.user, "nginx, www-data or nobody"))
}

func parseTemplates(given string) (string, error) {
	path, err := parseDirectory(given)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", fmt.Errorf("want a directory that exists, with templates: files whose names end in .ctmpl")
	}
	return path, nil
}

var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func parseUser(given string) (string, error) {
	if !userName.MatchString(given) {
		return "", fmt.Errorf("want the name of a user")
	}
	return given, nil
}
