package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"lbctl/internal/nginx"
)

// nginxFacts is what the first checks have found out about nginx.
type nginxFacts struct {
	binary    string
	build     nginx.Build // Version is "" if nginx can't be run
	output    string      // of nginx -V
	processes nginx.Processes
	running   bool
}

func checkBinary(ctx context.Context, e *examination) []Finding {
	dir, err := os.MkdirTemp("", "lbctl-")
	if err != nil {
		return skipped("%v", err)
	}
	defer os.RemoveAll(dir)
	instance, err := nginx.New(nginx.Options{
		StateDir: dir, RunDir: filepath.Join(dir, "run"), Binary: e.Config.Nginx.Binary, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return failed(err.Error(), "an nginx that runs")
	}
	binary := instance.Binary()
	output, err := exec.CommandContext(ctx, binary, "-V").CombinedOutput()
	if err != nil {
		return failed(fmt.Sprintf("%s -V: %v", binary, err), "an nginx that runs")
	}
	e.nginx = nginxFacts{binary: binary, build: instance.Build(), output: string(output)}
	e.nginx.processes, err = nginx.Observe(e.Config.RunDir, binary).Processes()
	e.nginx.running = err == nil
	if e.Daemon.answers() && e.Daemon.Status.Nginx.Version != e.nginx.build.Version {
		return mend(warning(fmt.Sprintf("%s is version %s, and the daemon has found %s when it started", binary, e.nginx.build.Version, e.Daemon.Status.Nginx.Version),
			"the same version"), "after an upgrade of nginx restart nginx, and then lbctl")
	}
	return ok("%s, version %s", binary, e.nginx.build.Version)
}

// A feature is what nginx has since a version.
type feature struct {
	since string
	costs string // what it costs to have an older one
}

var features = []feature{
	{"1.22.0", "lbctl is not tested with it"},
	{nginx.ManyWorkersSince, "nginx gets one worker, and so one core, and ends each connection of a client after a second, because it could lose gRPC calls at a reload otherwise"},
	{nginx.ResolveSince, "each change of instances needs a reload, at most one a second"},
}

func checkVersion(_ context.Context, e *examination) []Finding {
	version := e.nginx.build.Version
	if version == "" {
		return skipped("nginx can't be run")
	}
	var costs []string
	newest := ""
	for _, f := range features {
		if enough, err := nginx.AtLeast(version, f.since); err != nil || enough {
			continue
		}
		costs = append(costs, fmt.Sprintf("older than %s: %s", f.since, f.costs))
		newest = f.since
	}
	if len(costs) > 0 {
		return warning(fmt.Sprintf("version %s is %s", version, strings.Join(costs, "; ")), newest+" or later")
	}
	return ok("version %s has all that lbctl uses", version)
}

// A module is a part of nginx that is chosen when it is built.
type module struct {
	name   string
	with   string // the argument of configure that adds it; "" if it is there by default
	needed string // for what
	must   bool   // nothing works without it
}

var modules = []module{
	{"http_v2", "--with-http_v2_module", "gRPC", true},
	{"http_grpc", "", "gRPC", true},
	{"http_proxy", "", "HTTP services", true},
	{"http_map", "", "the answers of nginx itself", true},
	{"http_rewrite", "", "routes", true},
	{"http_ssl", "--with-http_ssl_module", "TLS, to clients and to instances", false},
	{"http_realip", "--with-http_realip_module", "the address of a client behind a proxy", false},
	{"http_auth_request", "--with-http_auth_request_module", "keys and external authentication", false},
	{"http_geo", "", "networks that are denied or allowed", false},
	{"http_limit_req", "", "limits of the rate", false},
	{"http_limit_conn", "", "limits of connections", false},
	{"http_split_clients", "", "shares of requests", false},
	{"http_upstream_zone", "", "servers of an upstream by DNS", false},
	{"stream_ssl", "--with-stream_ssl_module", "TLS of TCP services", false},
	{"stream_ssl_preread", "--with-stream_ssl_preread_module", "TCP services by server name", false},
	{"stream_realip", "--with-stream_realip_module", "the address of a TCP client behind a proxy", false},
}

func checkModules(_ context.Context, e *examination) []Finding {
	if e.nginx.build.Version == "" {
		return skipped("nginx can't be run")
	}
	var must, may []string
	for _, m := range modules {
		if e.nginx.has(m) {
			continue
		}
		text := fmt.Sprintf("%s (%s)", m.name, m.needed)
		if m.must {
			must = append(must, text)
		} else {
			may = append(may, text)
		}
	}
	if e.nginx.build.StreamModule == nginx.NoStream {
		may = append(may, "stream (TCP services)")
	}
	all := strings.Join(append(must, may...), ", ")
	switch {
	case len(must) > 0:
		return failed("nginx lacks "+all, "an nginx with these modules")
	case len(may) > 0:
		return warning("nginx lacks "+all, "these modules, if what they are for is used")
	}
	return ok("nginx has all %d modules that lbctl can use", len(modules)+1)
}

// has reports whether nginx was built with a module.
func (n nginxFacts) has(m module) bool {
	if m.with == "" {
		return !argument("--without-" + m.name + "_module").MatchString(n.output)
	}
	return argument(m.with).MatchString(n.output) || argument(m.with+"=dynamic").MatchString(n.output)
}

func argument(text string) *regexp.Regexp {
	return regexp.MustCompile(`\s` + regexp.QuoteMeta(text) + `(\s|$)`)
}

func checkRunning(_ context.Context, e *examination) []Finding {
	start := fmt.Sprintf("nginx -e %s -c %s -g 'daemon off;'",
		filepath.Join(e.Config.RunDir, "error.log"), filepath.Join(e.Config.StateDir, "current", nginx.MainFile))
	pid := e.nginx.processes.Master.PID
	switch {
	case !e.nginx.running && e.Daemon.answers() && e.Daemon.Status.Nginx.Generation > 0:
		return mend(failed("nginx's master process is gone, and its workers go on", "a running master process"),
			"start it with a supervisor: "+start+"; lbctl then ends the workers that are left")
	case !e.nginx.running && e.Daemon.answers():
		return mend(failed("nginx does not run", "a running nginx"), "start it with a supervisor: "+start)
	case !e.nginx.running:
		return skipped("nginx does not run; a supervisor starts it: %s", start)
	case e.Daemon.answers() && e.Daemon.Status.Nginx.Generation == 0:
		return failed(fmt.Sprintf("nginx is process %d, and does not say which generation it serves", pid), "an nginx that serves a generation of "+e.Config.StateDir)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if replaced, deleted := strings.CutSuffix(exe, " (deleted)"); err == nil && deleted {
		return mend(warning(fmt.Sprintf("nginx is process %d, whose program %s was replaced", pid, replaced), "a process of the new program"),
			"after an upgrade of nginx restart nginx, and then lbctl")
	}
	return ok("nginx is process %d, with %s", pid, plural(len(e.nginx.processes.Workers), "worker"))
}

// oldWorkersMemory is how much private memory old workers may have together.
const oldWorkersMemory = 512 << 20

func checkOldWorkers(_ context.Context, e *examination) []Finding {
	if !e.nginx.running {
		return skipped("nginx does not run")
	}
	old := e.nginx.processes.OldWorkers
	if len(old) == 0 {
		return ok("no worker is left from before a reload")
	}
	memory := int64(0)
	var pids []string
	oldest := e.Now() // lbctl knows since when they are old; the rest of the world since when they run
	for _, p := range old {
		memory += p.Memory
		pids = append(pids, fmt.Sprint(p.PID))
		if p.Started.Before(oldest) {
			oldest = p.Started
		}
	}
	if e.Daemon.answers() && !e.Daemon.Status.Nginx.OldWorkersSince.IsZero() {
		oldest = e.Daemon.Status.Nginx.OldWorkersSince
	}
	lasts := e.Now().Sub(oldest)
	found := fmt.Sprintf("%s from before a reload still finish requests, the oldest for %s, with %d MiB: %s",
		plural(len(old), "worker"), lasts.Round(time.Second), memory>>20, some(pids))
	if lasts >= e.OldWorkers || memory >= oldWorkersMemory {
		return mend(warning(found, "that they end within "+e.OldWorkers.String()),
			"have long streams end by themselves now and then, or break them: kill -TERM "+strings.Join(pids, " "))
	}
	return ok("%s", found)
}
