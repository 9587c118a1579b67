//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/lbtest"
	"lbctl/internal/testlog"
)

// listProcesses prints the user and the command line of every process in a container.
const listProcesses = `for p in /proc/[0-9]*; do echo "$(stat -c %U $p 2>/dev/null) $(tr '\0' ' ' 2>/dev/null <$p/cmdline)"; done`

// tryEverything tries what an attacker would do in a compromised worker of nginx. It
// prints a line for each success.
const tryEverything = `
for dir in /var/lib/lbctl /var/lib/lbctl/run /var/lib/lbctl/current /var/lib/lbctl/generations /var/lib/lbctl/seeds /var/lib/consul /run/agent /run/supervisord; do
	if touch $dir/taken 2>/dev/null; then echo "can write to $dir"; rm -f $dir/taken; fi
done
for file in /var/lib/lbctl/endpoints.json /var/lib/lbctl/history.jsonl /var/lib/lbctl/current/nginx.conf /var/lib/lbctl/run/nginx.pid /run/agent/lock; do
	if [ -w $file ]; then echo "can write $file"; fi
done
for p in /proc/[0-9]*; do
	case $(tr '\0' ' ' 2>/dev/null <$p/cmdline) in
	"lbctl run "* | supervisord* | "consul agent"* | registrar* | "nginx: master"*)
		if kill -0 ${p#/proc/} 2>/dev/null; then echo "can signal $(tr '\0' ' ' <$p/cmdline)"; fi ;;
	esac
done
if lbctl resume --addr unix:///var/lib/lbctl/run/admin.sock >/dev/null 2>&1; then echo "can use the admin socket"; fi
if supervisord -c /etc/supervisord.conf ctl status 2>/dev/null | grep -q Running; then echo "can command supervisord"; fi
`

// workersAreApart checks that the users in the image separate nginx's workers from lbctl.
func (c *docker) workersAreApart(t *testing.T) {
	users := c.compose(t, "exec", "-T", "load-balancer", "bash", "-c", listProcesses)
	for _, want := range []string{
		"root nginx: master process", "nginx nginx: worker process", "root lbctl run", "consul consul agent", "registrar registrar",
	} {
		assert.Contains(t, users, "\n"+want)
	}
	assert.Empty(t, c.compose(t, "exec", "-T", "--user", "nginx", "load-balancer", "bash", "-c", tryEverything),
		"what nginx's workers can do beyond their own")
	out, err := c.tryCompose("exec", "-T", "--user", "nginx", "load-balancer", "lbctl", "resume", "--addr", "unix:///var/lib/lbctl/run/admin.sock")
	assert.ErrorContains(t, err, "permission denied", out)
	// root, which runs lbctl, can still use the socket.
	c.compose(t, "exec", "-T", "load-balancer", "lbctl", "resume")
}

// withoutRoot starts another load balancer as an ordinary user.
func (c *docker) withoutRoot(t *testing.T) {
	name := c.project + "-without-root"
	c.run(t, "docker", "run", "-d", "--name", name, "--network", c.project+"_cluster",
		"--user", "4711:4711", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"-e", "CONSUL_JOIN=server-1 server-2 server-3", "-e", "CONSUL_PORT=8500",
		"-e", "APP_NAME=nginx-without-root", "-e", "APP_PORT=5000", "-e", "DRAIN=0s",
		"-e", "HEALTH_CHECK_TYPE=http", "-e", "HEALTH_CHECK_ENDPOINT=http://127.0.0.1:9119/readyz",
		strings.TrimSpace(c.run(t, "docker", "inspect", "-f", "{{.Image}}", c.containers(t, "load-balancer")[0])))
	t.Cleanup(func() {
		// The agent needs time to leave Consul.
		if out, err := c.try("docker", "stop", "-t", "30", name); err != nil {
			t.Errorf("stop %s: %v: %s", name, err, out)
		}
		testlog.Show(t, name, func() string {
			out, _ := c.try("bash", "-c", "docker logs "+name+" 2>&1 | tail -60")
			return out
		})
		if out, err := c.try("docker", "rm", "-f", "-v", name); err != nil {
			t.Errorf("remove %s: %v: %s", name, err, out)
		}
	})
	lbtest.Eventually(t, "it serves", func() error {
		_, err := c.try("docker", "exec", name, "lbctl", "status", "--ready")
		return err
	})
	out := c.run(t, "docker", "exec", name, "lbctl", "status", "--wait", "30s")
	assert.Contains(t, out, "which is what Consul says")
	logs := c.run(t, "bash", "-c", "docker logs "+name+" 2>&1")
	assert.Contains(t, logs, "lb: started as user 4711, so all programs share it")
	assert.Contains(t, logs, "nginx's workers run as lbctl's own user")
}
