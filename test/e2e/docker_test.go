//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/lbtest"
)

// These bounds come from the requirements of the first release.
const (
	shown   = 2 * time.Second  // from a passing check to the first answer
	removed = 2 * time.Second  // from a kill to out of the rotation
	settled = 15 * time.Second // from the return of Consul's servers to a change served
)

// TestDocker starts a cluster, scales it, breaks parts of it, and stops it. Each subtest
// leaves a complete cluster for the next one.
func TestDocker(t *testing.T) {
	c := newDocker(t)
	c.make(t, "up")

	t.Run("a call is answered by the host name of a container", c.answers)
	t.Run("lbctl prints the same in the container and on the host", c.status)
	t.Run("Consul shows both services, all checks green", c.registered)
	t.Run("scale 1 to 5: no failed call, all five within two seconds", c.scaleUp)
	t.Run("make up again keeps the scale and loses no call", c.upAgain)
	t.Run("scale 5 to 2: no failed call", c.scaleDown)
	t.Run("a killed server is out of the rotation within two seconds", c.killServer)
	t.Run("a killed server comes back with another address: soon in rotation, under one name", c.newAddress)
	t.Run("nginx's master killed: serves again at once", c.killNginx)
	t.Run("lbctl killed: no call fails", c.killLbctl)
	t.Run("the load balancer restarted: serves the same again, and hardly stops", c.restartBalancer)
	t.Run("nginx's workers can neither command lbctl nor write its state", c.workersAreApart)
	t.Run("a load balancer without root serves, and says that its programs share a user", c.withoutRoot)
	t.Run("the load balancer cut off from Consul, and connected again", c.cutOff)
	t.Run("one Consul server stopped: changes go through", c.stopOneConsul)
	t.Run("two Consul servers stopped: traffic goes on", c.stopTwoConsuls)
	t.Run("all Consul servers stopped, the load balancer restarted meanwhile", c.stopAllConsuls)
	t.Run("down and up: the same cluster with its data", c.downUp)
	t.Run("the walk of docs/routing.md", c.routingWalk)
	t.Run("docker-compose.observability.yaml: metrics, logs, traces and alerts", c.observability)
	t.Run("down leaves no container", c.down)
	t.Run("clean leaves no volume and no image, but those of others", c.clean)
}

func (c *docker) answers(t *testing.T) {
	out := c.run(t, "go", "run", "grpc_client/main.go", "-port="+c.grpcPort)
	assert.Regexp(t, regexp.MustCompile(`^Hello from [0-9a-f]{12}\.\n$`), out)
	out = c.run(t, "go", "run", "grpc_client/main.go", "-port="+c.grpcsPort, "-tls", "-ca=.run/certificates/localhost.crt")
	assert.Regexp(t, regexp.MustCompile(`^Hello from [0-9a-f]{12}\.\n$`), out)
}

func (c *docker) status(t *testing.T) {
	inside := c.compose(t, "exec", "-T", "load-balancer", "lbctl", "status")
	assert.Regexp(t, `^nginx serves generation \d+, which is what Consul says\n`, inside)
	outside := c.run(t, "bin/lbctl", "status", "--addr", c.admin)
	assert.Regexp(t, `^nginx serves generation \d+, which is what Consul says\n`, outside)
	services := c.run(t, "bin/lbctl", "services", "--addr", c.admin)
	assert.Regexp(t, `hello_server +grpc +\*/protos\.Ping, default +fresh +1/1`, services)
}

func (c *docker) registered(t *testing.T) {
	resp, err := http.Get(c.consulURL + "/ui/dc1/services")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusOK, resp.StatusCode)

	services, _, err := c.consul.Catalog().Services(nil)
	require.NoError(t, err)
	assert.Contains(t, services, "hello_server")
	assert.Contains(t, services, "nginx")
	lbtest.Eventually(t, "all checks pass", func() error {
		checks, _, err := c.consul.Health().State(api.HealthAny, nil)
		if err != nil {
			return err
		}
		for _, check := range checks {
			if check.Status != api.HealthPassing {
				return fmt.Errorf("%s of %s %s is %s: %s", check.Name, check.Node, check.ServiceName, check.Status, check.Output)
			}
		}
		return nil
	})
}

func (c *docker) scaleUp(t *testing.T) {
	load := c.load(t)
	passing := c.watchPassing(t)
	c.compose(t, "up", "-d", "--scale", "hello_server=5")
	c.waitRotation(t, 5)
	nodes := c.nodes(t)
	require.Len(t, nodes, 5)
	seen := passing.stop()
	load.WaitMore(t, 500)
	for _, node := range nodes {
		took := load.First(greeting(node)).Sub(seen[node])
		t.Logf("%s: %s from its check passing to its first answer", node, took.Round(time.Millisecond))
		assert.Less(t, took, shown, "from %s's check passing to its first answer", node)
	}
	c.lossless(t, load)
}

func (c *docker) upAgain(t *testing.T) {
	load := c.load(t)
	before := c.nodes(t)
	c.make(t, "up")
	assert.Equal(t, before, c.nodes(t))
	c.lossless(t, load)
}

func (c *docker) scaleDown(t *testing.T) {
	load := c.load(t)
	c.compose(t, "up", "-d", "--scale", "hello_server=2")
	c.waitRotation(t, 2)
	load.WaitMore(t, 500)
	c.lossless(t, load)
	lbtest.Eventually(t, "Consul has forgotten the three others", func() error {
		nodes, _, err := c.consul.Catalog().Service("hello_server", "", nil)
		if err == nil && len(nodes) != 2 {
			err = fmt.Errorf("it knows %d", len(nodes))
		}
		return err
	})
}

func (c *docker) killServer(t *testing.T) {
	c.compose(t, "up", "-d", "--scale", "hello_server=3")
	c.waitRotation(t, 3)
	load := c.load(t)
	load.WaitMore(t, 200)
	victim := c.containers(t, "hello_server")[0]
	node := victim[:12]

	began := time.Now()
	c.run(t, "docker", "kill", victim)
	killed := time.Now()
	lbtest.Eventually(t, "the killed server is out of the rotation", func() error {
		status, err := c.statusNow()
		if err == nil && status.Instances != 2 {
			err = fmt.Errorf("%d servers are in rotation: %s", status.Instances, status.Summary)
		}
		return err
	})
	out := time.Since(began)
	c.waitRotation(t, 2) // until lbctl is certain that nginx has fetched that, which takes a second more
	load.WaitMore(t, 1000)
	last := load.Last(greeting(node))
	result := load.Stop()

	t.Logf("out of the rotation %s after the kill, %d of %d calls failed: %v", out.Round(time.Millisecond), result.Failed(), result.Calls, result.Failures)
	assert.Less(t, out, removed, "from docker kill to out of the rotation")
	assert.True(t, last.Before(killed), "a killed server does not answer")
	// Two kinds of calls fail: those that the server had when it was killed, and those
	// that wait for a connection to it when nginx gets the new list, because nginx tries
	// no other instance of a list that has changed. A caller has one call at a time.
	assert.LessOrEqual(t, result.Failed(), 2*callers, "a call of each kind for each caller may fail")
	assert.True(t, result.LastFailedStart.Before(began.Add(removed)), "a call failed that started %s after the kill", result.LastFailedStart.Sub(began))

	// compose starts the killed server again, under its old name.
	c.compose(t, "up", "-d", "--scale", "hello_server=3")
	c.waitRotation(t, 3)
}

func (c *docker) killNginx(t *testing.T) {
	before := c.lbctl(t)
	c.compose(t, "exec", "-T", "load-balancer", "bash", "-c", "kill -KILL $(cat /var/lib/lbctl/run/nginx.pid)")
	began := time.Now()
	lbtest.Eventually(t, "another master serves", func() error {
		status, err := c.statusNow()
		if err != nil {
			return err
		}
		if status.Nginx.PID == before.Nginx.PID || status.State != controller.Serving {
			return fmt.Errorf("%s", status.Summary)
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("serving again after %s", took.Round(time.Millisecond))
	// lbctl looks every five seconds, and then nginx drops its bootstrap servers.
	assert.Less(t, took, 8*time.Second, "from the kill to serving what Consul says")
	load := c.load(t)
	load.WaitMore(t, 500)
	c.lossless(t, load)
}

func (c *docker) killLbctl(t *testing.T) {
	load := c.load(t)
	started := c.lbctl(t).Started
	c.compose(t, "exec", "-T", "load-balancer", "bash", "-c", `for p in /proc/[0-9]*; do [ "$(tr '\0' ' ' 2>/dev/null <$p/cmdline)" != "lbctl run " ] || kill -KILL ${p#/proc/}; done`)
	lbtest.Eventually(t, "lbctl is back", func() error {
		status, err := c.statusNow()
		if err == nil && (!status.Started.After(started) || status.State != controller.Serving) {
			err = fmt.Errorf("%s", status.Summary)
		}
		return err
	})
	c.lossless(t, load)
}

func (c *docker) stopOneConsul(t *testing.T) {
	load := c.load(t)
	c.compose(t, "stop", "server-1")
	c.compose(t, "up", "-d", "--no-deps", "--scale", "hello_server=4", "hello_server")
	c.waitRotation(t, 4)
	c.compose(t, "start", "server-1")
	c.waitLeader(t, 3)
	c.lossless(t, load)
}

func (c *docker) stopTwoConsuls(t *testing.T) {
	load := c.load(t)
	c.compose(t, "stop", "server-2", "server-3")
	lbtest.Eventually(t, "lbctl says that Consul has no leader", func() error {
		status, err := c.statusNow()
		if err == nil && (status.State != controller.Degraded || status.Consul.Leader != "") {
			err = fmt.Errorf("%s: %s", status.State, status.Summary)
		}
		return err
	})
	assert.Equal(t, 4, c.lbctl(t).Instances, "all instances are still served")
	load.WaitMore(t, 1000)
	c.compose(t, "start", "server-2", "server-3")
	c.waitLeader(t, 3)
	back := time.Now()
	c.compose(t, "up", "-d", "--scale", "hello_server=2")
	c.waitRotation(t, 2)
	t.Logf("scaled 4 to 2 in %s after Consul was back", time.Since(back).Round(time.Millisecond))
	c.lossless(t, load)
}

func (c *docker) stopAllConsuls(t *testing.T) {
	outage := lbtest.Outage(t, 20*time.Second)
	nodes := c.nodes(t)
	load := c.load(t)
	began := time.Now()
	c.compose(t, "stop", "server-1", "server-2", "server-3")
	load.WaitMore(t, 1000)
	c.lossless(t, load)

	c.compose(t, "restart", "load-balancer")
	lbtest.Eventually(t, "nginx serves, with Consul away", func() error {
		status, err := c.statusNow()
		if err == nil && (!status.Nginx.Running || status.Instances != len(nodes)) {
			err = fmt.Errorf("%s", status.Summary)
		}
		return err
	})
	t.Logf("status: %s", c.lbctl(t).Summary)
	load = c.load(t)
	// The outage is a time by itself; there is no condition to wait for.
	time.Sleep(time.Until(began.Add(outage)))
	assert.Equal(t, len(nodes), c.lbctl(t).Instances, "all instances are still served, after %s", outage)

	// In another order than before: Docker would give them other addresses, if
	// docker-compose.yaml didn't fix those.
	c.compose(t, "start", "server-3")
	c.compose(t, "start", "server-1")
	c.compose(t, "start", "server-2")
	c.waitLeader(t, 3)
	back := time.Now()
	passing := c.watchPassing(t)
	c.compose(t, "up", "-d", "--scale", fmt.Sprintf("hello_server=%d", len(nodes)+1))
	c.waitRotation(t, len(nodes)+1)
	took := time.Since(back)
	passing.stop()
	t.Logf("one more server served %s after Consul's servers were back", took.Round(time.Millisecond))
	assert.Less(t, took, settled, "from Consul's return to a change being served")
	c.lossless(t, load)
}

func (c *docker) downUp(t *testing.T) {
	generation := c.lbctl(t).Nginx.Generation
	c.make(t, "down")
	c.make(t, "up")
	assert.Greater(t, c.lbctl(t).Nginx.Generation, 0)
	assert.GreaterOrEqual(t, c.lbctl(t).Nginx.Generation, generation, "generations are kept")
	c.answers(t)
}

func (c *docker) down(t *testing.T) {
	c.make(t, "down")
	assert.Empty(t, c.compose(t, "ps", "-q"))
}

// clean keeps the images under the names of another project. So it shows that these stay,
// and the next run finds them as the builder's cache.
func (c *docker) clean(t *testing.T) {
	list := func(args ...string) []string { return strings.Fields(c.run(t, "docker", args...)) }
	images := func() []string { // Compose 1 names them PROJECT_SERVICE, Compose 2 PROJECT-SERVICE
		return list("images", "--format", "{{.Repository}}", "--filter", "reference="+c.project+"_*", "--filter", "reference="+c.project+"-*")
	}
	mine := func() []string {
		return append(images(), list("volume", "ls", "-q", "--filter", "name=^"+c.project)...)
	}
	root, err := os.Getwd()
	require.NoError(t, err)
	unnamed := func() []string {
		return list("images", "-q", "--filter", "dangling=true", "--filter", "label=lbctl.checkout="+root)
	}
	require.NotEmpty(t, mine())
	const other = "lbctl-e2e/"
	for _, image := range images() {
		list("tag", image, other+strings.TrimLeft(strings.TrimPrefix(image, c.project), "_-"))
	}
	for n, builder := range unnamed() {
		if n == 0 { // the newest
			list("tag", builder, other+"build")
		}
	}
	others := list("images", "-q", "--filter", "reference="+other+"*")

	clean := func() string {
		said, stay, _ := strings.Cut(c.run(t, "make", "clean"), "\n")
		_, stay, found := strings.Cut(stay, "images of others stay, for all checkouts: docker rmi ")
		assert.True(t, found, "at least the image of Go stays")
		list(append([]string{"image", "inspect", "--format", "{{.Id}}"}, strings.Fields(stay)...)...) // each exists
		return said
	}
	assert.Equal(t, "lbctl: deleted this checkout's containers, volumes and images", clean())
	assert.Empty(t, mine())
	assert.Empty(t, unnamed())
	assert.Equal(t, others, list("images", "-q", "--filter", "reference="+other+"*"))
	assert.Equal(t, "lbctl: this checkout has no containers, volumes or images", clean())
}

func greeting(node string) string { return "Hello from " + hostOf(node) + "." }

// lbctl is the status of lbctl.
func (c *docker) lbctl(t *testing.T) controller.Status {
	t.Helper()
	status, err := c.statusNow()
	require.NoError(t, err)
	return status
}

func (c *docker) statusNow() (controller.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.client.Status(ctx)
}
