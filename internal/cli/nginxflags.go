package cli

import (
	"fmt"
	"os"
	"regexp"
	"time"

	"lbctl/internal/daemon"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// nginxFlags are the flags that 'lbctl run' shares with the commands that render
// without it.
func nginxFlags(flags *flags, n *daemon.NginxConfig) {
	define(flags, &n.Templates, "templates", "LBCTL_TEMPLATES", "DIR",
		"templates that replace the built-in ones of the same name, and add to them", "", parseTemplates)
	define(flags, &n.Binary, "nginx", "LBCTL_NGINX", "PATH",
		"nginx's program (default nginx on PATH)", "", parseText)
	define(flags, &n.GRPCListen, "grpc-listen", "LBCTL_GRPC_LISTEN", "ADDRESS:PORT,...",
		"where nginx takes gRPC", render.DefaultGRPCListen, render.ParseListen)
	define(flags, &n.HTTPListen, "http-listen", "LBCTL_HTTP_LISTEN", "ADDRESS:PORT,...",
		"where nginx takes HTTP", render.DefaultHTTPListen, render.ParseListen)
	define(flags, &n.Workers, "workers", "LBCTL_WORKERS", "N",
		"nginx's worker processes (default the cores lbctl may use; 1 for an nginx older than 1.27.1)", 0, parseNumber(1, 1024))
	define(flags, &n.CPUAffinity, "worker-cpu-affinity", "LBCTL_WORKER_CPU_AFFINITY", "HOW",
		"auto keeps each of nginx's workers on a core of its own: for machines that are nginx's alone",
		daemon.AffinityOff, parseChoice(daemon.AffinityOff, daemon.AffinityAuto))
	define(flags, &n.OpenFiles, "open-files", "LBCTL_OPEN_FILES", "N",
		"files a worker may have open (default the hard limit, at most 1048576)", 0, parseNumber(64, 1<<20))
	define(flags, &n.User, "nginx-user", "LBCTL_NGINX_USER", "NAME",
		"who nginx's workers run as when lbctl is root (default nginx, www-data or nobody)", "", parseUser)
	define(flags, &n.MaxConnsPerClient, "max-conns-per-client", "LBCTL_MAX_CONNS_PER_CLIENT", "N",
		"requests, gRPC calls or TCP connections that one client address may have at a time (default no bound)", 0, parseNumber(0, 1000000))
	define(flags, &n.Marks.MaxFails, "max-fails", "LBCTL_MAX_FAILS", "N",
		"failed attempts after which nginx itself leaves an instance out for --fail-timeout (default never: lbctl's probes judge)", 0, parseNumber(0, 1000))
	define(flags, &n.Marks.FailTimeout, "fail-timeout", "LBCTL_FAIL_TIMEOUT", "DURATION",
		"within which --max-fails counts, and for which nginx then leaves the instance out", nginx.DefaultFailTimeout, parseDuration(time.Second))
	define(flags, &n.Endpoints, "endpoints", "LBCTL_ENDPOINTS", "HOW",
		"how changes of instances reach nginx: reload, dns (nginx asks lbctl for them) or auto, which is dns where nginx can",
		daemon.EndpointsAuto, parseChoice(daemon.EndpointsAuto, daemon.EndpointsDNS, daemon.EndpointsReload))
	define(flags, &n.DNSListen, "dns-listen", "LBCTL_DNS_LISTEN", "ADDRESS:PORT",
		"where lbctl answers nginx's questions for instances, UDP and TCP", resolver.DefaultListen, parseListen)
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
