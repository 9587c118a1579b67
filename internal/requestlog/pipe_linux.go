package requestlog

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipeOf returns a function that reports whether a pipe has room for a write: half of it stays
// free. Whoever reads slowly often reads lbctl's own log from the same pipe, and lbctl must not
// wait for room for that. It returns nil if out is no pipe.
func pipeOf(out io.Writer) (hasRoom func() bool) {
	f, ok := out.(*os.File)
	if !ok {
		return nil
	}
	conn, err := f.SyscallConn() // f.Fd would make its writes block a thread
	if err != nil {
		return nil
	}
	size := 0
	control := func(do func(fd uintptr) error) (failed error) {
		if err := conn.Control(func(fd uintptr) { failed = do(fd) }); err != nil {
			return err
		}
		return failed
	}
	if control(func(fd uintptr) (err error) { size, err = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); return err }) != nil {
		return nil
	}
	return func() bool {
		unread := 0
		err := control(func(fd uintptr) (err error) { unread, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ); return err })
		return err != nil || unread+atomicWrite <= size/2 // the write tells what is wrong
	}
}
