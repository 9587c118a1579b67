package accesslog

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const seekData = unix.SEEK_DATA

// punch makes a hole in a file: its memory becomes free, and the file keeps its size.
func punch(f *os.File, from, length int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, length)
		if err != syscall.EINTR {
			return err
		}
	}
}

// InMemory returns nil if a directory is on a tmpfs, or else an error that says so. Elsewhere
// the log must not be: nginx would wait for a disk that stalls, and all requests with it.
func InMemory(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("directory of the access log: %s: %w", dir, err)
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("directory of the access log: %s is not on a tmpfs: nginx would wait for its disk", dir)
	}
	return nil
}

// room returns how many bytes are free in the file system of a directory; less than 0 if that is not
// known, or if it has no limit.
func room(dir string) int64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Blocks == 0 {
		return -1
	}
	return int64(fs.Bavail) * fs.Bsize
}

// capacity returns the size of the file system of a directory, in bytes; 0 if it has no limit.
func capacity(dir string) int64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0
	}
	return int64(fs.Blocks) * fs.Bsize
}
