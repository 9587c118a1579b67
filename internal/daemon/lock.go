package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"lbctl/internal/disk"
)

// lock takes the lock of a directory, which only one daemon can hold. The lock ends when
// the file is closed or the process ends, also when it is killed.
func lock(path string) (*os.File, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("take the lock: %s is not a regular file: remove it, or choose another --state-dir or --run-dir", path)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("take the lock %s: %w", path, err)
		}
		owner := "another process"
		if content, err := disk.ReadFile(path, 64); err == nil && len(content) > 0 {
			owner = "process " + strings.TrimSpace(string(content))
		}
		return nil, fmt.Errorf("another 'lbctl run' uses this directory: %s holds %s; "+
			"stop it, or choose another --state-dir and --run-dir", owner, path)
	}
	if err := errors.Join(file.Truncate(0), write(file, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("take the lock %s: %w", path, err), file.Close())
	}
	return file, nil
}

func write(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
