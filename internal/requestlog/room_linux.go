package requestlog

import (
	"cmp"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// roomIn returns a function that reports whether a pipe or a socket has room for a write: half of
// it stays free. Whoever reads slowly often reads lbctl's own log from the same one, and lbctl must
// not wait for room for that. It returns nil if out is neither.
func roomIn(out io.Writer) (hasRoom func() bool) {
	f, ok := out.(*os.File)
	if !ok {
		return nil
	}
	conn, err := f.SyscallConn() // f.Fd would make its writes block a thread
	if err != nil {
		return nil
	}
	ask := func(question func(fd int) (int, error)) (answer int, err error) {
		failed := conn.Control(func(fd uintptr) { answer, err = question(int(fd)) })
		return answer, cmp.Or(failed, err)
	}
	unread := uint(unix.TIOCINQ)
	size, err := ask(func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) })
	if err != nil {
		unread = unix.SIOCOUTQ
		size, err = ask(func(fd int) (int, error) { return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF) })
	}
	if err != nil {
		return nil
	}
	return func() bool {
		n, err := ask(func(fd int) (int, error) { return unix.IoctlGetInt(fd, unread) })
		return err != nil || n+atomicWrite <= size/2 // the write tells what is wrong
	}
}
