//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/lbtest"
	"lbctl/internal/testlog"
)

// TestLocal runs the cluster as processes, on loopback addresses that no other program
// uses.
func TestLocal(t *testing.T) {
	dir := t.TempDir()
	const net = "127.77"
	address := func() string { return "127.0.0.1:" + freePort(t) }
	grpc, grpcs, http := address(), address(), address()
	c := newCheckout(t, "UP=local", "LOCAL_NET="+net, "LOCAL_DIR="+dir,
		"LB_GRPC_PORT="+grpc, "LB_GRPCS_PORT="+grpcs, "LB_HTTP_PORT="+http, "LB_HTTPS_PORT="+address())
	t.Cleanup(func() {
		c.make(t, "down")
		for _, name := range []string{"lbctl", "nginx", "hello-1", "server-1", "supervisord"} {
			testlog.Show(t, name, func() string {
				text, _ := os.ReadFile(filepath.Join(dir, "logs", name+".log"))
				return string(text[max(0, len(text)-3000):])
			})
		}
		assert.Empty(t, processes(t, dir), "make down ends everything")
	})

	c.make(t, "up", "N=1")
	assert.Equal(t, "Hello from hello_1.\n", c.run(t, "go", "run", "grpc_client/main.go", "-addr="+grpc))
	assert.Equal(t, "Hello from hello_1.\n", c.run(t, "go", "run", "grpc_client/main.go", "-addr="+grpcs, "-tls", "-ca="+filepath.Join(dir, "certificates", "localhost.crt")))
	status := c.run(t, "make", "status")
	assert.Contains(t, status, "which is what Consul says")
	assert.Regexp(t, `(?m)^Endpoints +by DNS`, status, "the nginx is one that takes changes without a reload")

	log, err := os.ReadFile(filepath.Join(dir, "logs", "lbctl.log"))
	require.NoError(t, err)
	assert.NotContains(t, string(log), "unknown environment variable")

	load := lbtest.StartLoad(t, grpc, callers, 5*time.Millisecond)
	c.make(t, "scale", "N=5")
	load.WaitMore(t, 500)
	for i := range 5 {
		name := fmt.Sprintf("hello_%d", i+1)
		assert.False(t, load.First(greeting(name)).IsZero(), "%s has answered", name)
	}
	c.make(t, "scale", "N=2")
	load.WaitMore(t, 500)
	result := load.Stop()
	t.Logf("%d calls, %d failed", result.Calls, result.Failed())
	assert.Zero(t, result.Failed(), "%v", result.Failures)
	ends := processes(t, "grpc_server\x00-listen\x00"+net)
	assert.Len(t, ends, 4, "two servers and their registrars: %v", ends)

	c.make(t, "down")
	require.Empty(t, processes(t, dir), "make down ends everything")
	c.make(t, "up")
	assert.Regexp(t, `^Hello from hello_[12]\.\n$`, c.run(t, "go", "run", "grpc_client/main.go", "-addr="+grpc))
}

// processes are the machine's processes whose command line contains the text. NUL
// separates the arguments there.
func processes(t testing.TB, text string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found []string
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if strings.Contains(string(line), text) && path != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	slices.Sort(found)
	return found
}
