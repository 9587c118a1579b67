package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"
	"time"
)

// most is the size that no file in memory can exceed.
const most = math.MaxInt64

// file is a file that nginx appends to. What lbctl has read is a hole in it, which needs no
// memory. So the hole also says how far an earlier lbctl has come, if no snapshot does.
//
// A file is made with a hole so long that nginx can append only Options.Size until the file
// has the size that no file can exceed. So the memory is bounded even while no lbctl runs.
// nginx then drops lines; requests don't notice.
type file struct {
	*os.File
	path   string // where it is now; empty: nowhere
	id     os.FileInfo
	pos    int64     // up to here all is read
	hole   int64     // up to here is a hole
	skip   bool      // pos is within a line that is too long
	grew   time.Time // when it last had something new
	unread int64     // bytes after pos, when it was last read
}

// createFile makes the file at path, or replaces it, with room for size bytes.
func createFile(path string, size int64) (*file, error) {
	made := path + ".new"
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// nginx's master gives it to the workers' user before they open it.
	f, err := os.OpenFile(made, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(most - size)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(made))
	}
	return newFile(f, path)
}

// openFile opens the file at path. It begins to read after the first hole.
func openFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	l, err := newFile(f, path)
	if err != nil {
		return nil, err
	}
	if l.id.Mode().Perm()&0o077 != 0 { // nginx has made it
		if err := f.Chmod(0o600); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return l, nil
}

func newFile(f *os.File, path string) (*file, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", f.Name()), f.Close())
	}
	l := &file{File: f, path: path, id: info, grew: time.Now()}
	l.pos, err = firstData(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.hole = l.pos
	return l, nil
}

// firstData returns where a file's data begins. Holes consist of pages, so the rest of the page
// in which one ends is zeros, which no line has.
func firstData(f *os.File) (int64, error) {
	pos, err := f.Seek(0, seekData)
	if errors.Is(err, syscall.ENXIO) { // there is only a hole
		return f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return 0, err
	}
	var page [4096]byte
	for {
		n, err := f.ReadAt(page[:min(int64(len(page)), most-pos)], pos)
		rest := bytes.TrimLeft(page[:n], "\x00")
		pos += int64(n - len(rest))
		switch {
		case len(rest) > 0 || n == 0 && errors.Is(err, io.EOF):
			return pos, nil
		case err != nil && !errors.Is(err, io.EOF):
			return 0, err
		}
	}
}

// size returns the file's size.
func (l *file) size() (int64, error) {
	info, err := l.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// inode identifies the file on its tmpfs.
func (l *file) inode() uint64 {
	if stat, is := l.id.Sys().(*syscall.Stat_t); is {
		return stat.Ino
	}
	return 0
}

// resume goes on where a former reader was, if it can have been there: the hole is made after the
// lines before it have been counted.
func (l *file) resume(pos int64, skip bool) {
	if size, err := l.size(); err == nil && pos >= l.pos && pos <= size {
		l.pos, l.skip = pos, skip
	}
}

// look looks how much there is to read.
func (l *file) look() error {
	size, err := l.size()
	if err != nil {
		return err
	}
	if size < l.pos { // somebody has truncated it
		l.pos, l.hole = size, min(l.hole, size)
	}
	l.unread = size - l.pos
	return nil
}

// read calls take for each line that was there at the last look, without its line feed, but not for
// much more than most bytes. It returns the number of lines that were too long for the buffer.
func (l *file) read(buffer []byte, most int64, take func(line []byte)) (tooLong int, err error) {
	for begin := l.pos; l.pos-begin < most && l.unread > 0; {
		n, err := l.ReadAt(buffer[:min(int64(len(buffer)), l.unread)], l.pos)
		if n == 0 {
			l.unread = 0 // the next look says more, and newer files need not wait
			return tooLong, err
		}
		chunk := buffer[:n]
		end := bytes.LastIndexByte(chunk, '\n') + 1
		if end == 0 && n < len(buffer) {
			l.unread = 0
			return tooLong, nil // the rest of the line comes with nginx's next write
		}
		l.grew = time.Now()
		lines := chunk[:end]
		if l.skip && end > 0 {
			lines = lines[bytes.IndexByte(lines, '\n')+1:]
			l.skip = false
		}
		for len(lines) > 0 {
			line := bytes.IndexByte(lines, '\n')
			take(lines[:line])
			lines = lines[line+1:]
		}
		if end == 0 {
			if !l.skip {
				tooLong++
			}
			l.skip, end = true, n
		}
		l.pos += int64(end)
		l.unread -= int64(end)
	}
	return tooLong, nil
}

// free makes a hole of what is read.
func (l *file) free() error {
	if l.hole >= l.pos {
		return nil
	}
	// From the start of a page, since only whole pages become free.
	start := l.hole &^ int64(os.Getpagesize()-1)
	if err := punch(l.File, start, l.pos-start); err != nil {
		return fmt.Errorf("make a hole in %s: %w", l.Name(), err)
	}
	l.hole = l.pos
	return nil
}
