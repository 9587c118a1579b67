package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestConnect checks which daemon a command queries.
func TestConnect(t *testing.T) {
	socket := newFakeDaemon()
	socket.status.Version = "over-socket"
	stateDir := shortDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(stateDir, "run"), 0o755))
	serveAt(t, socket, filepath.Join(stateDir, "run"))

	web := newFakeDaemon()
	web.status.Version = "over-http"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serveOn(t, web, listener)
	addr := listener.Addr().String()

	missing := shortDir(t)
	for name, test := range map[string]struct {
		args, environ []string
		want          string // in the status, or in the error
	}{
		"a state directory":                      {environ: []string{"LBCTL_STATE_DIR=" + stateDir}, want: "over-socket"},
		"a run directory":                        {args: []string{"--run-dir", filepath.Join(stateDir, "run")}, want: "over-socket"},
		"an address":                             {environ: []string{"LBCTL_ADDR=http://" + addr}, want: "over-http"},
		"an address without its scheme":          {args: []string{"--addr", addr}, want: "over-http"},
		"a socket's address":                     {args: []string{"--addr", "unix://" + stateDir + "/run/admin.sock"}, want: "over-socket"},
		"both by environment: the socket":        {environ: []string{"LBCTL_STATE_DIR=" + stateDir, "LBCTL_ADDR=" + addr}, want: "over-socket"},
		"both, and the socket is not there":      {environ: []string{"LBCTL_STATE_DIR=" + missing, "LBCTL_ADDR=" + addr}, want: "over-http"},
		"--addr wins over directories":           {args: []string{"--addr", addr}, environ: []string{"LBCTL_STATE_DIR=" + stateDir}, want: "over-http"},
		"a directory without a socket":           {environ: []string{"LBCTL_RUN_DIR=" + missing}, want: "(the socket does not exist)"},
		"a relative path to a socket is refused": {args: []string{"--addr", "unix://admin.sock"}, want: "want unix:// and an absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			got := command(t.Context(), Terminal{}, test.environ, append([]string{"status"}, test.args...)...)
			assert.Contains(t, got.out+got.err, test.want)
		})
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	got := command(t.Context(), Terminal{}, nil, "services", "--addr", addr)
	assert.Equal(t, exitUnreachable, got.code)
	assert.Equal(t, "lbctl: no daemon answered at http://"+addr+" (connection refused); is 'lbctl run' running? Give its address with --addr or LBCTL_ADDR\n", got.err)
	assert.Empty(t, got.out)
}

func TestChangesGoOverTheSocketOnly(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serveOn(t, newFakeDaemon(), listener)
	for _, line := range []string{"rollback", "resume", "accept"} {
		got := command(t.Context(), Terminal{}, nil, line, "--addr", listener.Addr().String())
		assert.Equal(t, exitFailure, got.code)
		assert.Contains(t, got.err, "needs the daemon's unix socket")
		assert.Empty(t, got.out)
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range shells {
		got := command(t.Context(), Terminal{}, nil, "completion", shell)
		assert.Equal(t, exitOK, got.code)
		assert.Contains(t, got.out, "lbctl")
	}
}

func TestVersion(t *testing.T) {
	got := command(t.Context(), Terminal{}, nil, "version")
	assert.Equal(t, exitOK, got.code)
	assert.True(t, strings.HasPrefix(got.out, "lbctl dev"), got.out)
	got = command(t.Context(), Terminal{}, nil, "version", "-o", "json")
	assert.Contains(t, got.out, `"version": "dev"`)
}

func TestTerminalOf(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	assert.Equal(t, Terminal{}, TerminalOf(file, nil), "a file is no terminal")
	assert.Equal(t, Terminal{}, TerminalOf(new(strings.Builder), nil))
}
