package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// RotateLog keeps <run>/error.log bounded: at 16 MiB it becomes error.log.1, in
// place of an earlier one, and nginx starts another. Apply and Activate do so
// too; who goes for days without either calls it from time to time.
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
	master := i.master()
	if master == 0 {
		return nil // it opens a new one when it starts
	}
	if err := syscall.Kill(master, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("tell nginx (process %d) to open its log again: %w", master, err)
	}
	// nginx looks at a reload first when both are asked of it, and what it says
	// about that would then be in the old file, where nobody looks.
	opened, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for opened.Err() == nil {
		if _, err := os.Stat(i.logPath()); err == nil {
			return nil
		}
		select {
		case <-opened.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("rotate the error log: %w", err)
	}
	return fmt.Errorf("rotate the error log: nginx (process %d) did not open %s again within a second", master, i.logPath())
}

// removeOldTests takes away what a crash left of Test.
func (i *Instance) removeOldTests() {
	tests, _ := filepath.Glob(filepath.Join(i.opts.RunDir, "test-*"))
	for _, dir := range tests {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > 2*testTimeout {
			os.RemoveAll(dir)
		}
	}
}
