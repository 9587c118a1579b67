//go:build bench

package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

// A renewal starts nginx with a configuration. It returns the process id of nginx or of
// its supervisor, and the command that makes nginx use a new configuration.
type renewal func(t *testing.T, s *site, dir, conf string) (pid int, command string)

// startRecipe starts the usual recipe: consul-template renders nginx's upstreams, and
// runs a command that makes nginx use them.
func startRecipe(t *testing.T, s *site, renew renewal) balancer {
	t.Helper()
	upstreams := newTemplate(t, s, nginxtest.Dir(t), "upstreams.conf", recipeUpstream(grpcService)+recipeUpstream(httpService))
	at := freeFronts(func() int { return nginxtest.FreePort(t) })
	conf := handwritten{Workers: workers, Upstreams: "include " + upstreams.target + ";"}.write(t, s, upstreams.dir, at)
	pid, command := renew(t, s, upstreams.dir, conf)
	upstreams.follow(t, s, command)
	return &proxy{at: at, pids: []int{pid}, counts: upstreams.runs}
}

func recipeUpstream(service string) string {
	return fmt.Sprintf(`upstream %[1]s {
  zone %[1]s 128k;
{{- range service "%[1]s"}}
  server {{.Address}}:{{.Port}};
{{- else}}
  server 127.0.0.1:1;
{{- end}}
  keepalive 64;
  keepalive_requests 100000;
}
`, service)
}

// hup starts nginx, and reloads it with SIGHUP.
func hup(t *testing.T, s *site, dir, conf string) (pid int, command string) {
	process := nginxtest.Start(t, s.nginx, conf, dir)
	return process.PID(), fmt.Sprintf("kill -HUP %d", process.PID())
}

// restart starts nginx under supervisord, which stops it and starts it again. The Go
// supervisord may leave a program stopped that is restarted within a second after its start,
// so the command waits for that second, and tries again until nginx runs.
func restart(t *testing.T, s *site, dir, conf string) (pid int, command string) {
	program, err := exec.LookPath("supervisord")
	require.NoError(t, err)
	settings := filepath.Join(dir, "supervisord.conf")
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, `[supervisord]
logfile=%[1]s/supervisord.out
pidfile=%[1]s/supervisord.pid
[unix_http_server]
file=%[1]s/supervisord.sock
[supervisorctl]
serverurl=unix://%[1]s/supervisord.sock
[program:nginx]
command=%[2]s -e %[1]s/error.log -c %[3]s -g "daemon off;"
autorestart=true
stopsignal=TERM
`, dir, s.nginx.Path, conf), 0o644))
	pid = startProcess(t, dir, "supervisord", program, "-c", settings)
	lbtest.Eventually(t, "nginx runs under supervisord", func() error {
		_, err := os.Stat(filepath.Join(dir, "nginx.pid"))
		return err
	})
	ctl := fmt.Sprintf("%s -c %s ctl", program, settings)
	return pid, fmt.Sprintf("for n in 1 2 3 4 5 6 7 8 9 10; do %[1]s restart nginx; sleep 1; %[1]s status nginx | grep -q Running && break; done", ctl)
}

// startHAProxy starts HAProxy with a configuration that consul-template renders.
func startHAProxy(t *testing.T, s *site) balancer {
	t.Helper()
	at := freeFronts(func() int { return nginxtest.FreePort(t) })
	dir := nginxtest.Dir(t)
	conf := newTemplate(t, s, dir, "haproxy.cfg", fmt.Sprintf(`global
  nbthread 2
  maxconn 4096
  stats socket %[8]s/admin.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 1h
frontend grpc
  bind %[1]s proto h2
  bind %[3]s ssl crt %[5]s alpn h2
  default_backend %[6]s
frontend http
  bind %[2]s
  bind %[4]s ssl crt %[5]s alpn h2,http/1.1
  default_backend %[7]s
backend %[6]s
{{- range service "%[6]s"}}
  server {{.ID}} {{.Address}}:{{.Port}} proto h2
{{- end}}
backend %[7]s
{{- range service "%[7]s"}}
  server {{.ID}} {{.Address}}:{{.Port}}
{{- end}}
`, at[grpcPlain], at[httpPlain], at[grpcTLS], at[httpTLS], s.identity.both, grpcService, httpService, dir))
	program, err := exec.LookPath("haproxy")
	require.NoError(t, err)
	pid := startProcess(t, dir, "haproxy", program, "-W", "-f", conf.target)
	awaitListening(t, at) // SIGUSR2 ends a master that has no handler for it yet
	// SIGUSR2 also ends a master that is executing itself again, hence the sleep.
	conf.follow(t, s, fmt.Sprintf("kill -USR2 %d && sleep 0.5", pid))
	return &proxy{at: at, pids: []int{pid}, counts: conf.runs}
}

// A consulTemplate is a file that consul-template renders.
type consulTemplate struct {
	dir, target string
	source      string // path of the template
}

// newTemplate renders the file once.
func newTemplate(t *testing.T, s *site, dir, name, source string) *consulTemplate {
	t.Helper()
	c := &consulTemplate{dir: dir, target: filepath.Join(dir, name), source: filepath.Join(dir, name+".ctmpl")}
	require.NoError(t, os.WriteFile(c.source, []byte(source), 0o644))
	out, err := exec.Command("consul-template", "-consul-addr", s.lbs.Addr, "-once", "-template", c.source+":"+c.target).CombinedOutput()
	require.NoError(t, err, "consul-template -once: %s", out)
	return c
}

// follow runs consul-template with its default settings. It runs the command whenever
// the file has changed.
func (c *consulTemplate) follow(t *testing.T, s *site, command string) {
	t.Helper()
	startProcess(t, c.dir, "consul-template", "consul-template", "-consul-addr", s.lbs.Addr,
		"-template", fmt.Sprintf("%s:%s:echo >>%s; %s", c.source, c.target, c.record(), command))
}

func (c *consulTemplate) record() string { return filepath.Join(c.dir, "runs") }

// runs is how often consul-template has run the command.
func (c *consulTemplate) runs() int {
	text, _ := os.ReadFile(c.record()) // missing before the first run
	return bytes.Count(text, []byte("\n"))
}
