package cli

import (
	"fmt"
	"os"
	"regexp"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/daemon"
	"lbctl/internal/nginx"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// nginxFlags defines the flags that 'lbctl run', 'lbctl render' and 'lbctl check'
// share.
func nginxFlags(flags *flags, n *daemon.NginxConfig) {
	define(flags, &n.Templates, "templates", "LBCTL_TEMPLATES", kindDir,
		"directory with templates; they replace built-in templates of the same name and add new ones", "", parseTemplates)
	define(flags, &n.Binary, "nginx", "LBCTL_NGINX", kindFile,
		"nginx executable (default nginx on PATH)", "", parseText)
	define(flags, &n.GRPCListen, "grpc-listen", "LBCTL_GRPC_LISTEN", "ADDRESS:PORT,...",
		"addresses on which nginx accepts gRPC", render.DefaultGRPCListen, render.ParseListen)
	define(flags, &n.HTTPListen, "http-listen", "LBCTL_HTTP_LISTEN", "ADDRESS:PORT,...",
		"addresses on which nginx accepts HTTP", render.DefaultHTTPListen, render.ParseListen)
	listenerFlags(flags, n)
	define(flags, &n.Workers, "workers", "LBCTL_WORKERS", "N",
		"nginx's worker processes (default the number of cores lbctl may use; 1 if nginx is older than 1.27.1)", 0, parseNumber(1, 1024))
	choose(flags, &n.CPUAffinity, "worker-cpu-affinity", "LBCTL_WORKER_CPU_AFFINITY", "HOW",
		"auto binds each of nginx's workers to its own core; use it only if nginx has the machine to itself",
		daemon.AffinityOff, daemon.AffinityOff, daemon.AffinityAuto)
	define(flags, &n.OpenFiles, "open-files", "LBCTL_OPEN_FILES", "N",
		"open files per worker (default the hard limit, at most 1048576)", 0, parseNumber(64, 1<<20))
	define(flags, &n.User, "nginx-user", "LBCTL_NGINX_USER", "NAME",
		"user of nginx's workers if lbctl runs as root (default nginx, www-data or nobody)", "", parseUser)
	choose(flags, &n.AccessLog, "access-log", "LBCTL_ACCESS_LOG", "on|off",
		"have nginx log each request for lbctl, in memory; off: only requests to services with a circuit breaker",
		daemon.AccessLogOn, daemon.AccessLogOn, daemon.AccessLogOff)
	define(flags, &n.AccessLogDir, "access-log-dir", "LBCTL_ACCESS_LOG_DIR", kindDir,
		"directory on a tmpfs where nginx logs requests for lbctl; it must be there when nginx starts (default the run directory, if that is on a tmpfs)", "", parseDirectory)
	define(flags, &n.AccessLogSize, "access-log-size", "LBCTL_ACCESS_LOG_SIZE", "SIZE",
		"how many bytes of memory nginx's log may take while lbctl does not read it, such as 64m (default 128m, at most 3/4 of the tmpfs)", 0, parseSize(accesslog.MinSize, 64<<30))
	choose(flags, &n.InFlight, "requests-in-flight", "LBCTL_REQUESTS_IN_FLIGHT", "on|off",
		"count the requests in flight of each service; nginx then logs the beginning of each request too",
		daemon.InFlightOff, daemon.InFlightOn, daemon.InFlightOff)
	tracingFlags(flags, &n.Traces)
	healthFlags(flags, n)
	define(flags, &n.MaxConnsPerClient, "max-conns-per-client", "LBCTL_MAX_CONNS_PER_CLIENT", "N",
		"concurrent requests, gRPC calls or TCP connections per client address (default no limit)", 0, parseNumber(0, 65535))
	define(flags, &n.Marks.MaxFails, "max-fails", "LBCTL_MAX_FAILS", "N",
		"failed attempts after which nginx itself skips an instance for --fail-timeout (default never: lbctl's probes eject instances)", 0, parseNumber(0, 1000))
	define(flags, &n.Marks.FailTimeout, "fail-timeout", "LBCTL_FAIL_TIMEOUT", "DURATION",
		"period in which nginx counts --max-fails, and for which it then skips the instance", nginx.DefaultFailTimeout, parseDuration(time.Second))
	choose(flags, &n.Endpoints, "endpoints", "LBCTL_ENDPOINTS", "HOW",
		"delivery of servers to nginx: dns (nginx asks lbctl), reload (lbctl reloads nginx), or auto (dns if nginx supports it)",
		daemon.EndpointsAuto, daemon.EndpointsAuto, daemon.EndpointsDNS, daemon.EndpointsReload)
	define(flags, &n.DNSListen, "dns-listen", "LBCTL_DNS_LISTEN", "ADDRESS:PORT",
		"address on which lbctl answers nginx's DNS queries, UDP and TCP", resolver.DefaultListen, parseListen)
}

func parseTemplates(given string) (string, error) {
	path, err := parseDirectory(given)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", fmt.Errorf("want an existing directory with templates, which are files named *.ctmpl")
	}
	return path, nil
}

var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func parseUser(given string) (string, error) {
	if !userName.MatchString(given) {
		return "", fmt.Errorf("want a user name")
	}
	return given, nil
}
