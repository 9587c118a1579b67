// Package disk reads and writes the files that lbctl keeps, and reads those of an operator.
// Writes survive a crash. A read neither blocks nor reads without end, whatever is at the path
// of the file. A Reader also leaves a file system alone that has stalled.
package disk

import (
	"os"
	"path/filepath"
)

// Replace replaces the file at path by one with the concatenated parts, in one step:
// after a crash the file is the old one or the new one. It returns when the new one is
// on disk. A crash may leave path.new behind, which the next Replace removes.
func Replace(path string, parts ...[]byte) error {
	return replace(path, func(f *os.File) error { return f.Chmod(0o644) }, parts)
}

// ReplaceSecret is Replace for a file that only its owner and the group with the id can read.
// With an id of -1 only the owner can.
func ReplaceSecret(path string, group int, parts ...[]byte) error {
	return replace(path, func(f *os.File) error {
		if group < 0 {
			return f.Chmod(0o600)
		}
		if err := f.Chown(-1, group); err != nil {
			return err
		}
		return f.Chmod(0o640)
	}, parts)
}

// replace gives the new file its mode before its content, because the content may be secret.
func replace(path string, protect func(*os.File) error, parts [][]byte) (err error) {
	if err := os.RemoveAll(path + ".new"); err != nil { // may be of any type
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := protect(f); err != nil {
		return err
	}
	for _, b := range parts {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // the file is replaced, but perhaps not synced
	}
	defer d.Close()
	return d.Sync()
}
