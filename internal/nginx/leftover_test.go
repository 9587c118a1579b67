package nginx

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// TestEndLeftovers starts nginx as a plain supervisor does: without a look at what a killed one has
// left.
func TestEndLeftovers(t *testing.T) {
	t.Parallel()
	nginxtest.Each(t, func(t *testing.T, binary nginxtest.Binary) {
		for name, kill := range map[string]func(*nginxtest.Process){
			"the master alone": (*nginxtest.Process).KillMaster,
			"all of it":        (*nginxtest.Process).Kill,
		} {
			t.Run(name, func(t *testing.T) {
				e := newEnv(t, binary)
				e.apply1(t)
				first := e.start(t)
				e.requireServing(t, 1, "one")
				workers := first.Workers()
				ended, err := e.EndLeftovers()
				require.NoError(t, err)
				assert.Empty(t, ended)
				kill(first)
				ended, err = e.EndLeftovers()
				require.NoError(t, err)
				assert.Empty(t, ended, "nobody wants their ports")

				conf := filepath.Join(CurrentDir(e.opts.StateDir), MainFile)
				next := exec.Command(binary.Path, "-e", e.logPath(), "-c", conf, "-g", "daemon off;")
				require.NoError(t, next.Start())
				t.Cleanup(func() {
					next.Process.Signal(syscall.SIGTERM)
					next.Wait()
				})
				require.Eventually(t, func() bool {
					ended, err := e.EndLeftovers()
					assert.NoError(t, err)
					assert.Subset(t, workers, ended)
					return e.master() == next.Process.Pid
				}, 20*time.Second, 50*time.Millisecond)
				e.requireServing(t, 1, "one")
				for _, pid := range workers {
					require.Eventually(t, func() bool { return commandLine(pid) == "" }, 20*time.Second, 50*time.Millisecond)
				}
				ended, err = e.EndLeftovers()
				require.NoError(t, err)
				assert.Empty(t, ended)
				assert.FileExists(t, e.socketPath())
			})
		}
	})
}
