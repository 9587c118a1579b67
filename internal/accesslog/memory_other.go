//go:build !linux

package accesslog

import (
	"errors"
	"os"
)

const seekData = 3

// punch is for Linux only, like InMemory, without which no file is made.
func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }

// InMemory returns an error: only Linux has a tmpfs.
func InMemory(dir string) error {
	return errors.New("directory of the access log: " + dir + " is not on a tmpfs, which only Linux has")
}

// room is for Linux only.
func room(string) int64 { return -1 }

// capacity is for Linux only.
func capacity(string) int64 { return 0 }
