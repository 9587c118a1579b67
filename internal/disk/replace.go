// Package disk reads and writes the files that lbctl keeps: writes survive a crash,
// and nothing in the place of a file makes a read wait or grow without end.
package disk

import (
	"os"
	"path/filepath"
)

// Replace replaces the file at path by one with the parts, one after the other, in
// one step: after a crash it is the old one or the new one. It returns when the new
// one is on disk. What a crash leaves behind, at path.new, the next one removes.
func Replace(path string, parts ...[]byte) (err error) {
	if err := os.RemoveAll(path + ".new"); err != nil { // whatever it is
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(0o644); err != nil {
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
		return nil // renamed; only its durability is not certain
	}
	defer d.Close()
	return d.Sync()
}
