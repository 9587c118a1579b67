package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// RotateLog limits the size of <run>/error.log: at 16 MiB it renames the file to
// error.log.1, which it replaces, and makes nginx open a new one. Apply and Activate do
// the same; a caller that uses neither for days must call RotateLog now and then.
func (i *Instance) RotateLog(ctx context.Context) error {
	if err := i.acquire(ctx); err != nil {
		return fmt.Errorf("rotate the error log: %w", err)
	}
	defer i.release()
	return i.rotateLog(ctx)
}

func (i *Instance) rotateLog(ctx context.Context) error {
	info, err := os.Stat(i.logPath())
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() < i.logMax {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rotate the error log: %w", err)
	}
	if err := os.Rename(i.logPath(), i.logPath()+".1"); err != nil {
		return fmt.Errorf("rotate the error log: %w", err)
	}
	if err := i.protectLog(); err != nil {
		return fmt.Errorf("rotate the error log: %w", err)
	}
	master := i.master()
	if master == 0 {
		return nil // nginx opens the new one when it starts
	}
	if err := reopenLogs(master); err != nil {
		return err
	}
	// Wait until nginx has opened it. If a reload is requested meanwhile, nginx reloads
	// first, and its messages about the reload go to the old file, which lbctl does not
	// read.
	opened, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for opened.Err() == nil {
		if has, err := hasOpen(master, i.logPath()); has || err != nil {
			return nil // after an error nobody can know
		}
		select {
		case <-opened.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("rotate the error log: %w", err)
	}
	return fmt.Errorf("rotate the error log: nginx (process %d) did not reopen %s within a second", master, i.logPath())
}

// hasOpen reports whether a process has the file that is at path now.
func hasOpen(pid int, path string) (bool, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	wanted, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		info, err := os.Stat(filepath.Join(dir, fd.Name()))
		return err == nil && os.SameFile(info, wanted)
	}), nil
}

// logMode is that of the error log, because messages about requests have their query strings.
const logMode = 0o640

// protectLog makes the error log, because nginx would make one that everybody can read, and
// protects those that are there. It leaves the target of an operator's link as it is.
func (i *Instance) protectLog() error {
	var errs []error
	for _, path := range []string{i.logPath(), i.logPath() + ".1"} {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && path == i.logPath():
			var f *os.File
			if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, logMode); err == nil {
				err = f.Close()
			}
		case err == nil && info.Mode().IsRegular() && info.Mode().Perm()&^logMode != 0:
			err = os.Chmod(path, logMode)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ReopenLogs makes the running nginx open its logs again, because another file is at the path of
// one. It does not wait until nginx has done so. It does nothing if nginx doesn't run.
func (i *Instance) ReopenLogs() error {
	master := i.master()
	if master == 0 {
		return nil
	}
	return reopenLogs(master)
}

func reopenLogs(master int) error {
	if err := syscall.Kill(master, syscall.SIGUSR1); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("make nginx (process %d) open its logs again: %w", master, err)
	}
	return nil
}

// removeOldTests removes the directories of Test that a crash left behind.
func (i *Instance) removeOldTests() {
	tests, _ := filepath.Glob(filepath.Join(i.opts.RunDir, "test-*"))
	for _, dir := range tests {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > 2*testTimeout {
			os.RemoveAll(dir)
		}
	}
}
