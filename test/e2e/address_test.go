//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// returned bounds the time from the start of a container to its server being in
// rotation. Consul's gossip refuses a known name or node id under a new address for half a minute.
const returned = 15 * time.Second

// newAddress kills a server, and starts it again when another container has its address.
func (c *docker) newAddress(t *testing.T) {
	c.compose(t, "up", "-d", "--scale", "hello_server=3")
	c.waitRotation(t, 3)
	victim := c.containers(t, "hello_server")[0]
	host := victim[:12]
	before := c.address(t, victim)

	c.run(t, "docker", "kill", victim)
	c.waitRotation(t, 2)
	squatter := c.project + "-squatter"
	t.Cleanup(func() { c.run(t, "docker", "rm", "-f", "-v", squatter) })
	c.run(t, "docker", "run", "-d", "--name", squatter, "--network", c.project+"_cluster", "--ip", before,
		"--entrypoint", "sleep", strings.TrimSpace(c.run(t, "docker", "inspect", "-f", "{{.Image}}", victim)), "600")

	load := c.load(t)
	began := time.Now()
	c.run(t, "docker", "start", victim)
	after := c.address(t, victim)
	require.NotEqual(t, before, after)
	c.waitRotation(t, 3)
	took := time.Since(began)
	t.Logf("in rotation at %s, before at %s, %s after its start", after, before, took.Round(time.Millisecond))
	assert.Less(t, took, returned, "from docker start to in rotation")

	var again []*api.ServiceEntry
	lbtest.Eventually(t, "Consul has only the new node", func() error {
		old, _, err := c.consul.Catalog().Node(host, nil)
		again = c.entriesOf(t, host)
		if err == nil && (old != nil || len(again) != 1) {
			err = fmt.Errorf("%d entries, and %v", len(again), old)
		}
		return err
	})
	assert.Less(t, time.Since(began), returned, "from docker start to the end of the old entries")
	assert.Equal(t, host+"-"+strings.ReplaceAll(after, ".", "-"), again[0].Node.Node)
	assert.Equal(t, after, again[0].Node.Address)
	load.WaitMore(t, 500)
	assert.False(t, load.First(greeting(host)).IsZero(), "it answers")
	c.lossless(t, load)
}

// entriesOf are the entries of the demo's servers in a container, whatever their checks
// say.
func (c *docker) entriesOf(t testing.TB, host string) []*api.ServiceEntry {
	t.Helper()
	entries, _, err := c.consul.Health().Service("hello_server", "", false, nil)
	require.NoError(t, err)
	var of []*api.ServiceEntry
	for _, entry := range entries {
		if hostOf(entry.Node.Node) == host {
			of = append(of, entry)
		}
	}
	return of
}

func (c *docker) address(t testing.TB, container string) string {
	t.Helper()
	return strings.TrimSpace(c.run(t, "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container))
}

// hostOf is the host name in a node name, which is HOST, or HOST-ADDRESS for a container
// that has come back with another address.
func hostOf(node string) string {
	host, _, _ := strings.Cut(node, "-")
	return host
}
