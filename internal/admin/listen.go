package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
)

// ListenUnix listens on a unix socket that only the daemon's own user can use. It
// removes an existing socket, which an earlier daemon left behind: the caller must hold
// the daemon's lock.
func ListenUnix(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listen on %s: the file exists and is not a socket; remove it, or choose another --run-dir", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: remove the socket left behind: %w", path, err)
		}
	}
	listener, err := listenPrivately(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return listener, nil
}

// umask is held by whoever has changed the process's umask: of two that change it at once, one
// would restore the other's.
var umask sync.Mutex

// listenPrivately makes a socket with mode 0600. A chmod after listening would leave a moment for
// other users to connect.
func listenPrivately(path string) (net.Listener, error) {
	umask.Lock()
	defer umask.Unlock()
	mask := syscall.Umask(0o177)
	defer syscall.Umask(mask)
	return net.Listen("unix", path)
}

// ListenTCP listens on an address such as "127.0.0.1:9119".
func ListenTCP(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another process uses the port; choose another one with --admin or LBCTL_ADMIN, or \"none\"", address)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return listener, nil
}
