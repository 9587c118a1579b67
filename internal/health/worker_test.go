package health

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConnectionsNameTheirWorker(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells the process at the other end")
	}
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	conn, err := workerListener{listener}.Accept()
	require.NoError(t, err)
	defer conn.Close()
	assert.Equal(t, worker(os.Getpid()), conn.RemoteAddr())
}
