//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A stand-in that is made again leaves no image without a name, unless a container uses it.
func TestFormerStandins(t *testing.T) {
	c := newCheckout(t, "DOCKER_BUILDKIT=0")
	name := fmt.Sprintf("lbctl-test/standin:%d", os.Getpid())
	number := 0
	build := func(label string) string {
		number++
		c.run(t, "bash", "-c", fmt.Sprintf(`printf 'FROM scratch\nENV NUMBER=%d\nCMD ["none"]\nLABEL %s=test\n' | docker build -q -t %s -`, number, label, name))
		return strings.TrimSpace(c.run(t, "docker", "image", "inspect", "-f", "{{.Id}}", name))
	}
	isThere := func(image string) bool {
		_, err := c.try("docker", "image", "inspect", image)
		return err == nil
	}
	clean := func() {
		c.run(t, "bash", "-c", `set -euo pipefail; here=build/base; root=.; say() { echo "$*"; }; . build/base/observability.sh; remove_former`)
	}

	other := build("lbctl.other")
	used := build("lbctl.standin")
	container := strings.TrimSpace(c.run(t, "docker", "create", used))
	former := build("lbctl.standin")
	newest := build("lbctl.standin")
	t.Cleanup(func() {
		_, _ = c.try("docker", "rm", container)
		_, _ = c.try("docker", "rmi", name)
		_, _ = c.try("docker", "rmi", other)
	})
	clean()
	assert.False(t, isThere(former))
	assert.True(t, isThere(used), "a container uses it")
	assert.True(t, isThere(newest))
	assert.True(t, isThere(other), "it is no stand-in")

	c.run(t, "docker", "rm", container)
	clean()
	assert.False(t, isThere(used), "no container uses it any more")
	assert.True(t, isThere(newest))
}
