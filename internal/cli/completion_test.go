package cli

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/daemon"
)

// completes checks what the daemon, which balances the service web with the instance one,
// completes.
func (r *running) completes() {
	r.t.Helper()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"services", ""}, `web\thttp, 1/1 in rotation\n`},
		{[]string{"accept", ""}, `web\thttp, 1/1 in rotation\n`},
		{[]string{"services", "web", ""}, `one\t127\.0\.0\.1:\d+ on \S+, passing, gets traffic\n`},
		{[]string{"services", "web", "one", ""}, ``},
		{[]string{"services", "nope", ""}, ``},
		{[]string{"rollback", ""}, `\d+\t.*, current: new service web \+1\n(?s:.*)\d+\t.*: .*\n`},
		{[]string{"diff", "1", ""}, `\d+\t.*, current: new service web \+1\n(?s:.*)\d+\t.*: .*\n`},
	} {
		got := r.lbctl(append([]string{"__complete"}, test.args...)...)
		assert.Equal(r.t, exitOK, got.code, test.args)
		assert.Regexp(r.t, `^`+test.want+`:\d+\n$`, got.out, test.args)
	}
}

// TestCompletionWithoutDaemon: a shell must not show an error, or wait, where a daemon is away.
func TestCompletionWithoutDaemon(t *testing.T) {
	complete := func(t *testing.T, runDir string) time.Duration {
		began := time.Now()
		got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + runDir}, "__complete", "services", "")
		assert.Equal(t, ":36\n", got.out)
		assert.Equal(t, "Completion ended with directive: ShellCompDirectiveNoFileComp, ShellCompDirectiveKeepOrder\n", got.err,
			"shells leave this line out")
		return time.Since(began)
	}
	t.Run("away", func(t *testing.T) { complete(t, shortDir(t)) })
	t.Run("silent", func(t *testing.T) {
		runDir := shortDir(t)
		listener, err := net.Listen("unix", daemon.SocketPath(runDir))
		require.NoError(t, err)
		defer listener.Close()
		assert.Less(t, complete(t, runDir), 10*time.Second, "it gives up after %s", completeTimeout)
	})
}
