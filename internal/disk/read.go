package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrUnfit is the error for what is in the place of a file and can't be one: a
// directory, a named pipe, a socket, a device, a symbolic link to nothing, or more bytes
// than the file can have.
// MoveAside makes room.
var ErrUnfit = errors.New("unfit")

// ReadFile reads a regular file of at most most bytes. Unlike os.ReadFile it never
// waits for somebody to write to a named pipe, and never reads without end. It
// follows a symbolic link. The error is ErrUnfit, or that of the system.
func ReadFile(path string, most int64) ([]byte, error) {
	file, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	tooLong := info.Size() > most
	var content []byte
	if !tooLong {
		content, err = io.ReadAll(io.LimitReader(file, most+1)) // it may grow meanwhile
		tooLong = int64(len(content)) > most
	}
	if err != nil {
		return nil, err
	}
	if tooLong {
		return nil, fmt.Errorf("%s is %w: it has more than %d bytes", path, ErrUnfit, most)
	}
	return content, nil
}

// Open opens a regular file to read from, under the promises of ReadFile.
func Open(path string) (*os.File, error) { return open(path, os.O_RDONLY) }

// Append adds to a regular file, which it makes if there is none, under the promises
// of ReadFile. It does not wait until what it wrote is on disk.
func Append(path string, content []byte) error {
	file, err := open(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

// open looks at what is there before it opens it, for to open a device can do
// something, and again afterwards, for it may be another one by then.
func open(path string, flags int) (*os.File, error) {
	if info, err := os.Stat(path); err == nil {
		if err := regular(path, info); err != nil {
			return nil, err
		}
	} else if target, linkErr := os.Readlink(path); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is %w: it is a symbolic link to %s, where nothing is", path, ErrUnfit, target)
	}
	// A named pipe is not waited for; to a regular file the flag means nothing.
	file, err := os.OpenFile(path, flags|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = regular(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func regular(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is %w: it is %s, want a regular file", path, ErrUnfit, kind(info.Mode()))
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	default:
		return "a regular file"
	}
}

// maxAside is how many things are kept that were moved aside from one path.
const maxAside = 100

// MoveAside renames what is at path, whatever it is, to path.broken, or path.broken.2
// and so on where that is taken, and returns its new path. It fails where it has moved
// aside a hundred already: somebody must look.
func MoveAside(path string) (string, error) {
	aside := path + ".broken"
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if n > maxAside {
			return "", fmt.Errorf("move %s aside: %d files called %s.broken and so on are there already; look at them and remove them", path, maxAside, path)
		}
		aside = fmt.Sprintf("%s.broken.%d", path, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move %s aside: %w", path, err)
	}
	return aside, nil
}

// Clear moves aside what is at path unless it is a regular file or nothing, and returns
// where it is now, "" if nothing was moved. It does not follow a symbolic link.
func Clear(path string) (aside string, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode().IsRegular() {
		return "", nil
	}
	return MoveAside(path)
}

// Directory makes a directory at path, with its parents. What is in its place is moved
// aside, and Directory returns where it is now; a symbolic link is an operator's, and
// stays.
func Directory(path string) (aside string, err error) {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
		if aside, err = MoveAside(path); err != nil {
			return "", err
		}
	}
	return aside, os.MkdirAll(path, 0o755)
}
