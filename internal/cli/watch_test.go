package cli

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/controller"
	"lbctl/internal/daemon"
	"lbctl/internal/testlog"
)

// watch runs a command line until the test has seen enough of it.
func watch(t *testing.T, terminal Terminal, runDir string, args ...string) (out *testlog.Buffer, end func() int) {
	t.Helper()
	out = new(testlog.Buffer)
	ctx, cancel := context.WithCancel(context.Background())
	codes := make(chan int, 1)
	go func() {
		codes <- Main(ctx, System{
			Args: args, Out: out, Err: out, Environ: []string{"LBCTL_RUN_DIR=" + runDir}, Terminal: terminal,
			Now: func() time.Time { return now },
		})
	}()
	return out, sync.OnceValue(func() int {
		cancel()
		return <-codes
	})
}

func seen(out *testlog.Buffer, text string) func() bool {
	return func() bool { return strings.Contains(out.String(), text) }
}

const (
	patience = 20 * time.Second
	often    = 10 * time.Millisecond
)

// changingDaemon changes while a command queries it.
type changingDaemon struct {
	*fakeDaemon
	mu sync.Mutex
}

func (d *changingDaemon) Status(ctx context.Context) controller.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fakeDaemon.Status(ctx)
}

func (d *changingDaemon) change(how func(*fakeDaemon)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	how(d.fakeDaemon)
}

func TestWatchPrintsALineForEachChange(t *testing.T) {
	daemon := &changingDaemon{fakeDaemon: newFakeDaemon()}
	out, end := watch(t, Terminal{}, serve(t, daemon), "status", "--watch", "--interval", "100ms")
	require.Eventually(t, seen(out, "serving"), patience, often)
	daemon.change(frozen)
	require.Eventually(t, seen(out, "frozen"), patience, often)
	assert.Equal(t, exitOK, end(), "Ctrl-C is how a watch ends")
	assert.Equal(t, `09:16:30  serving   nginx serves generation 42, which is what Consul says
09:16:30  frozen    nginx serves generation 41, pinned by a rollback at 09:10:30; a change waits (hello_server +2); 'lbctl resume' follows Consul again
`, out.String())
}

func TestWatchPrintsJSONLines(t *testing.T) {
	out, end := watch(t, Terminal{}, newFakeDaemon().start(t), "status", "--watch", "-o", "json")
	require.Eventually(t, seen(out, "\n"), patience, often)
	assert.Equal(t, exitOK, end())
	assert.Equal(t, 1, strings.Count(out.String(), "\n"))
	assert.True(t, strings.HasPrefix(out.String(), `{"state":"serving","summary":"nginx serves generation 42`), out.String())
}

func TestWatchPrintsYAMLDocuments(t *testing.T) {
	daemon := &changingDaemon{fakeDaemon: newFakeDaemon()}
	out, end := watch(t, Terminal{}, serve(t, daemon), "status", "--watch", "--interval", "100ms", "-o", "yaml")
	require.Eventually(t, seen(out, "upstreams: 3\n"), patience, often)
	daemon.change(frozen)
	require.Eventually(t, seen(out, "state: frozen\n"), patience, often)
	assert.Equal(t, exitOK, end())
	documents := strings.Split(out.String(), "---\n")
	assert.Len(t, documents, 3)
	assert.Empty(t, documents[0])
	assert.True(t, strings.HasPrefix(documents[1], "state: serving\nsummary: nginx serves generation 42"), out.String())
}

func TestWatchRedrawsOnATerminal(t *testing.T) {
	daemon := &changingDaemon{fakeDaemon: newFakeDaemon()}
	out, end := watch(t, Terminal{Width: 100, Height: 6}, serve(t, daemon), "status", "--watch", "--interval", "100ms")
	require.Eventually(t, seen(out, "Ctrl-C"), patience, often)
	daemon.change(down)
	require.Eventually(t, seen(out, "does not answer"), patience, often)
	assert.Equal(t, exitOK, end())
	pages := strings.Split(out.String(), home)
	assert.Equal(t, clearAll, pages[0])
	assert.Equal(t, "nginx serves generation 42, which is what Consul says\x1b[K\n\x1b[K\nState        serving\x1b[K\n…\x1b[K\n"+
		"\x1b[K\n09:16:30, Ctrl-C to end\x1b[J", pages[1], "a page is no higher than the terminal")
}

func TestWaitForADaemonThatIsNotThereYet(t *testing.T) {
	t.Run("the daemon starts", func(t *testing.T) {
		daemon := newFakeDaemon()
		runDir := shortDir(t)
		out, end := watch(t, Terminal{}, runDir, "status", "--wait", "20s", "--interval", "100ms")
		serveAt(t, daemon, runDir)
		require.Eventually(t, seen(out, "State        serving"), patience, often)
		assert.Equal(t, exitOK, end())
	})
	t.Run("the daemon does not start", func(t *testing.T) {
		runDir := shortDir(t)
		got := command(t.Context(), Terminal{}, []string{"LBCTL_RUN_DIR=" + runDir}, "status", "--wait", "150ms", "--interval", "100ms")
		assert.Equal(t, exitUnreachable, got.code)
		away := "no daemon answered at unix://" + daemon.SocketPath(runDir) +
			" (the socket does not exist); is 'lbctl run' running? Give its address with --addr or LBCTL_ADDR\n"
		assert.Equal(t, "waiting until nginx serves what Consul says, at most 150ms\n  "+away+"lbctl: waited 150ms: "+away, got.err)
	})
	t.Run("the wait is interrupted", func(t *testing.T) {
		out, end := watch(t, Terminal{}, shortDir(t), "status", "--wait", "1h")
		assert.Equal(t, exitFailure, end())
		assert.True(t, strings.HasSuffix(out.String(), "lbctl: interrupted\n"), out.String())
	})
}
