package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrUnfit is the error for something at the path of a file that can't be that file: a
// directory, a named pipe, a socket, a device, a broken symbolic link, or a file that is
// too large. MoveAside makes room for the file.
var ErrUnfit = errors.New("unfit")

// ReadFile reads a regular file of at most most bytes. Unlike os.ReadFile it does
// not block on a named pipe and does not read without end. It follows symbolic links.
// The error is ErrUnfit, or that of the system.
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
		content, err = io.ReadAll(io.LimitReader(file, most+1)) // the file may grow meanwhile
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

// Open opens a regular file for reading, with the guarantees of ReadFile.
func Open(path string) (*os.File, error) { return open(path, os.O_RDONLY) }

// Append appends to a regular file, with the guarantees of ReadFile. It creates the file
// if necessary, and does not sync it.
func Append(path string, content []byte) error {
	file, err := open(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

// open checks the type of the file before it opens it, because opening a device can have
// effects, and again afterwards, because the file may have been replaced.
func open(path string, flags int) (*os.File, error) {
	if info, err := os.Stat(path); err == nil {
		if err := regular(path, info); err != nil {
			return nil, err
		}
	} else if target, linkErr := os.Readlink(path); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is %w: it is a symbolic link to %s, which does not exist", path, ErrUnfit, target)
	}
	// O_NONBLOCK keeps open from blocking on a named pipe. It has no effect on a regular
	// file.
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

// maxAside limits how many files MoveAside keeps for one path.
const maxAside = 100

// MoveAside renames the file of any type at path to path.broken, or to path.broken.2 and
// so on if that exists, and returns the new path. It fails if there are a hundred of
// them: an operator must find the cause.
func MoveAside(path string) (string, error) {
	aside := path + ".broken"
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if n > maxAside {
			return "", fmt.Errorf("move %s aside: there are %d files %s.broken* already; look at them and remove them", path, maxAside, path)
		}
		aside = fmt.Sprintf("%s.broken.%d", path, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move %s aside: %w", path, err)
	}
	return aside, nil
}

// Clear moves aside a file at path that is not regular. aside is its new path, "" if
// nothing was moved. It does not follow symbolic links.
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

// Directory makes a directory at path, with its parents. It moves aside a file at path;
// aside is its new path, "" if nothing was moved. It keeps a symbolic link, which an
// operator has made.
func Directory(path string) (aside string, err error) {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
		if aside, err = MoveAside(path); err != nil {
			return "", err
		}
	}
	return aside, os.MkdirAll(path, 0o755)
}
