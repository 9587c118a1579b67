//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"lbctl/internal/admin"
	"lbctl/internal/lbtest"
	"lbctl/internal/testlog"
)

// callers is the number of callers in every load.
const callers = 4

// A checkout is a directory in which commands run, with an environment of its own.
type checkout struct{ env []string }

// newCheckout is the repository's root.
func newCheckout(t *testing.T, env ...string) checkout {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Chdir(root)
	return checkout{env: append(os.Environ(), env...)}
}

// run runs a command and returns its standard output. The command must succeed.
func (c checkout) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := c.try(name, args...)
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return out
}

func (c checkout) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = c.env
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// make runs make, which must succeed.
func (c checkout) make(t testing.TB, args ...string) {
	t.Helper()
	began := time.Now()
	c.run(t, "make", append([]string{"--no-print-directory"}, args...)...)
	t.Logf("make %s took %s", strings.Join(args, " "), time.Since(began).Round(time.Millisecond))
}

// docker is the cluster in containers. It is a compose project with its own name and
// ports.
type docker struct {
	checkout
	composeCommand []string
	project        string // names of its containers, volumes and networks begin with it
	grpcPort       string
	grpcsPort      string
	httpPort       string
	httpsPort      string
	admin          string // URL of lbctl's admin port
	consulURL      string
	consul         *api.Client
	client         *admin.Client
	observed       observed
}

func newDocker(t *testing.T) *docker {
	t.Helper()
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatalf("no Docker engine answers, and LB_TEST_REQUIRE=1: %v: %s", err, out)
		}
		t.Skip("no Docker engine answers")
	}
	grpcPort, grpcsPort, httpPort, httpsPort, adminPort, uiPort := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	// .ci/run sets the name, so that it can clean up after a test that was killed.
	observed, observedEnv := observedPorts(t)
	project := cmp.Or(os.Getenv("LB_E2E_PROJECT"), fmt.Sprintf("lbctl-e2e-%d", os.Getpid()))
	c := &docker{
		project:  project,
		observed: observed,
		checkout: newCheckout(t, append(observedEnv,
			"UP=docker",
			"COMPOSE_PROJECT_NAME="+project,
			fmt.Sprintf("LB_NETWORK=192.168.%d", 200+os.Getpid()%50),
			"LB_GRPC_PORT=127.0.0.1:"+grpcPort,
			"LB_GRPCS_PORT=127.0.0.1:"+grpcsPort,
			"LB_HTTP_PORT=127.0.0.1:"+httpPort,
			"LB_HTTPS_PORT=127.0.0.1:"+httpsPort,
			"LB_ADMIN_PORT=127.0.0.1:"+adminPort,
			"CONSUL_UI_PORT=127.0.0.1:"+uiPort)...,
		),
		composeCommand: []string{"docker-compose"},
		grpcPort:       grpcPort,
		grpcsPort:      grpcsPort,
		httpPort:       httpPort,
		httpsPort:      httpsPort,
		admin:          "http://127.0.0.1:" + adminPort,
		consulURL:      "http://127.0.0.1:" + uiPort,
	}
	if exec.Command("docker", "compose", "version").Run() == nil {
		c.composeCommand = []string{"docker", "compose"}
	}
	var err error
	c.consul, err = api.NewClient(&api.Config{Address: c.consulURL})
	require.NoError(t, err)
	c.client, err = admin.NewClient(c.admin)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, service := range []string{"load-balancer", "consul-ui", "server-1"} {
			testlog.Show(t, service, func() string {
				out, _ := c.tryCompose("logs", "--no-color", "--tail=60", service)
				return out
			})
		}
		if out, err := c.tryCompose("-f", "docker-compose.yaml", "-f", "docker-compose.observability.yaml", "down", "--volumes", "--rmi", "local", "--remove-orphans", "--timeout", "20"); err != nil {
			t.Errorf("clean up: %v\n%s", err, out)
		}
	})
	return c
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

func (c *docker) compose(t testing.TB, args ...string) string {
	t.Helper()
	return c.run(t, c.composeCommand[0], append(c.composeCommand[1:], args...)...)
}

func (c *docker) tryCompose(args ...string) (string, error) {
	return c.try(c.composeCommand[0], append(c.composeCommand[1:], args...)...)
}

func (c *docker) containers(t testing.TB, service string) []string {
	t.Helper()
	return strings.Fields(c.compose(t, "ps", "-q", service))
}

// nodes are the node names of the servers that pass their checks.
func (c *docker) nodes(t testing.TB) []string {
	t.Helper()
	entries, _, err := c.consul.Health().Service("hello_server", "", true, nil)
	require.NoError(t, err)
	var nodes []string
	for _, entry := range entries {
		nodes = append(nodes, entry.Node.Node)
	}
	return nodes
}

func (c *docker) load(t testing.TB) *lbtest.Load {
	t.Helper()
	return lbtest.StartLoad(t, "127.0.0.1:"+c.grpcPort, callers, 5*time.Millisecond)
}

// lossless ends a load, and checks that no call has failed.
func (c *docker) lossless(t testing.TB, load *lbtest.Load) {
	t.Helper()
	result := load.Stop()
	t.Logf("%d calls, %d failed", result.Calls, result.Failed())
	if result.Failed() > 0 {
		t.Errorf("%d of %d calls failed, want none: %v", result.Failed(), result.Calls, result.Failures)
	}
}

// waitRotation waits until exactly n servers get traffic.
func (c *docker) waitRotation(t testing.TB, n int) {
	t.Helper()
	lbtest.Eventually(t, fmt.Sprintf("%d servers are in rotation", n), func() error {
		status, err := c.statusNow()
		if err == nil && (status.Instances != n || status.Pending != nil || !status.Nginx.Running) {
			err = fmt.Errorf("%d are: %s", status.Instances, status.Summary)
		}
		return err
	})
}

// waitLeader waits until the agent with the UI sees a leader and this many voters.
func (c *docker) waitLeader(t testing.TB, voters int) {
	t.Helper()
	lbtest.Eventually(t, fmt.Sprintf("Consul has a leader and %d servers", voters), func() error {
		peers, err := c.consul.Status().Peers()
		if err == nil && len(peers) != voters {
			err = fmt.Errorf("%d servers: %v", len(peers), peers)
		}
		return err
	})
}

// passing records since when each instance passes its checks.
type passing struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	since  map[string]time.Time
}

// watchPassing starts to note. Instances that pass already count from now on.
func (c *docker) watchPassing(t testing.TB) *passing {
	ctx, cancel := context.WithCancel(context.Background())
	p := &passing{cancel: cancel, since: map[string]time.Time{}}
	t.Cleanup(cancel)
	p.done.Go(func() {
		query := (&api.QueryOptions{WaitTime: time.Minute}).WithContext(ctx)
		for ctx.Err() == nil {
			entries, meta, err := c.consul.Health().Service("hello_server", "", true, query)
			if err != nil {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			query.WaitIndex = meta.LastIndex
			for _, entry := range entries {
				if _, known := p.since[entry.Node.Node]; !known {
					p.since[entry.Node.Node] = time.Now()
				}
			}
		}
	})
	return p
}

func (p *passing) stop() map[string]time.Time {
	p.cancel()
	p.done.Wait()
	return p.since
}
