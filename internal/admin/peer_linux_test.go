package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// dialAs connects to a unix socket as a user. Only one thread gets the user id, and it ends
// after that.
func dialAs(t *testing.T, uid int, path string) (net.Conn, error) {
	t.Helper()
	var conn net.Conn
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the runtime ends the thread
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	if err == nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func TestOtherUsersCannotUseTheSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user")
	}
	const nobody = 65534
	path, _ := serveServer(t, newServer(&fake{current: 2}))
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o755))

	_, err := dialAs(t, nobody, path)
	assert.ErrorIs(t, err, os.ErrPermission, "the socket's mode keeps others away")

	require.NoError(t, os.Chmod(path, 0o777))
	for _, test := range []struct {
		uid, status int
		says        string
	}{
		{nobody, http.StatusForbidden, "user 65534 may not use the socket, want root or user 0, which runs lbctl"},
		{0, http.StatusOK, ""},
	} {
		conn, err := dialAs(t, test.uid, path)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "POST /v1/resume HTTP/1.1\r\nHost: lbctl\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		body := new(strings.Builder)
		_, err = io.Copy(body, response.Body)
		require.NoError(t, err)
		assert.Equal(t, test.status, response.StatusCode, "user %d: %s", test.uid, body)
		assert.Contains(t, body.String(), test.says)
	}
}
