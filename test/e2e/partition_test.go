//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
)

// resynced bounds the time from the end of a partition until all changes are served:
// two seconds until lbctl makes its agent join its servers again, ten in which the agent may
// still use a connection from before (yamux's ConnectionWriteTimeout; only the kernel knows when
// it sends anew), one second until nginx asks, and some seconds for a loaded machine. Most
// partitions heal within three.
const resynced = 16 * time.Second

// cutOff cuts the load balancer's container off from Consul's servers and agents. Callers
// still reach the balancer, and the balancer reaches the instances.
func (c *docker) cutOff(t *testing.T) {
	before := c.nodes(t)
	load := c.load(t)
	heal := c.dropConsul(t)
	lbtest.Eventually(t, "lbctl says that Consul is away", func() error {
		status, err := c.statusNow()
		if err == nil && status.Consul.Leader != "" {
			err = fmt.Errorf("%s: %s", status.State, status.Summary)
		}
		return err
	})
	c.compose(t, "up", "-d", "--no-deps", "--scale", fmt.Sprintf("hello_server=%d", len(before)+2), "hello_server")
	var added []string
	lbtest.Eventually(t, "Consul has two more servers", func() error {
		added = slices.DeleteFunc(c.nodes(t), func(node string) bool { return slices.Contains(before, node) })
		if len(added) != 2 {
			return fmt.Errorf("it has %d", len(added))
		}
		return nil
	})
	load.WaitMore(t, 1000)
	assert.Equal(t, len(before), c.lbctl(t).Instances, "all instances are still served")

	healed := time.Now()
	heal()
	for _, node := range added {
		lbtest.Eventually(t, node+" answers", func() error {
			if load.First(greeting(node)).IsZero() {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		took := load.First(greeting(node)).Sub(healed)
		t.Logf("%s answered %s after the partition had healed", node, took.Round(time.Millisecond))
		assert.Less(t, took, resynced)
	}
	c.waitRotation(t, len(before)+2)
	c.lossless(t, load)
	c.compose(t, "up", "-d", "--scale", fmt.Sprintf("hello_server=%d", len(before)))
	c.waitRotation(t, len(before))
}

// dropConsul makes the load balancer's container drop all packets of Consul until heal is
// called.
func (c *docker) dropConsul(t *testing.T) (heal func()) {
	t.Helper()
	pid := strings.TrimSpace(c.run(t, "docker", "inspect", "-f", "{{.State.Pid}}", c.containers(t, "load-balancer")[0]))
	rules := func(action string) error {
		for _, chain := range []string{"INPUT", "OUTPUT"} {
			for _, protocol := range []string{"tcp", "udp"} {
				for _, port := range []string{"--dport", "--sport"} {
					out, err := exec.Command("nsenter", "-t", pid, "-n", "iptables", "-w", action, chain,
						"-p", protocol, port, "8300:8302", "-j", "DROP").CombinedOutput()
					if err != nil {
						return fmt.Errorf("iptables %s: %w: %s", action, err, out)
					}
				}
			}
		}
		return nil
	}
	if err := rules("-I"); err != nil {
		if os.Geteuid() == 0 && os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, NOT TESTED: cutting a container off takes root and iptables on the engine's machine: %v", err)
	}
	return func() { require.NoError(t, rules("-D")) }
}
