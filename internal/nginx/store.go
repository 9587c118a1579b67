package nginx

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lbctl/internal/disk"
)

// A Note is what the maker of a configuration wants remembered about it.
type Note struct {
	Hash      string `json:"hash,omitempty"`   // of the files, as their maker counts it
	Reason    string `json:"reason,omitempty"` // why it was made
	Services  int    `json:"services"`         // how many are in it
	Instances int    `json:"instances"`        // how many of them get traffic
	Change    string `json:"change,omitempty"` // "+1 -0 instances: hello_server"
	// Upstreams are those whose servers nginx asks for, sorted; nil: not known, since
	// an older lbctl stored the generation.
	Upstreams []string `json:"upstreams,omitzero"`
}

// Bounds of what is read of a generation. A directory with a higher number is none of
// lbctl's: at one generation a second it would take 30 million years to get there.
const (
	maxNumber = 1_000_000_000_000_000
	maxNote   = 1 << 20
	maxFile   = 256 << 20
)

// A Generation is a configuration on disk.
type Generation struct {
	Number  int       `json:"number"` // 1 is the first; 0 is none
	Created time.Time `json:"created"`
	Served  time.Time `json:"served,omitzero"` // when nginx first answered from it; zero when it never has
	Note
}

// Current returns the generation nginx is to serve, which is the one it serves
// unless something is wrong: see Serving. Number is 0 when there is none yet.
func (i *Instance) Current() (Generation, error) {
	n, err := i.store.current()
	if err != nil || n == 0 {
		return Generation{}, err
	}
	return i.store.read(n)
}

// Generations returns what is on disk, the newest first.
func (i *Instance) Generations() ([]Generation, error) { return i.store.list() }

// Files returns what Apply was given for a generation, by name. The error is
// fs.ErrNotExist when there is no such generation (any more).
func (i *Instance) Files(number int) (map[string][]byte, error) { return i.store.files(number) }

// store is the state directory's part that is about generations. Everything in
// it appears by rename(2), complete and on disk, or does not appear. Names that
// start with a dot are work in progress.
type store struct{ dir string }

func (s store) generations() string { return filepath.Join(s.dir, "generations") }
func (s store) link() string        { return filepath.Join(s.dir, "current") }
func (s store) newLink() string     { return filepath.Join(s.dir, ".current.new") }
func (s store) newDir() string      { return filepath.Join(s.generations(), ".new") }

func dirName(n int) string { return fmt.Sprintf("%06d", n) }

func (s store) path(n int) string { return filepath.Join(s.generations(), dirName(n)) }

// write puts a generation on disk as work in progress. Number and files are
// final; publish makes it one of the generations.
func (s store) write(g Generation, files map[string][]byte) error {
	if err := s.clean(); err != nil {
		return err
	}
	if err := os.Mkdir(s.newDir(), 0o755); err != nil {
		return err
	}
	note, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return err
	}
	files = withFile(files, noteFile, append(note, '\n'))
	if err := writeFiles(s.newDir(), files); err != nil {
		return errors.Join(err, s.discard())
	}
	if err := syncTree(s.newDir()); err != nil {
		return errors.Join(err, s.discard())
	}
	return nil
}

func (s store) publish(n int) error {
	if err := os.Rename(s.newDir(), s.path(n)); err != nil {
		return errors.Join(err, s.discard())
	}
	return syncFile(s.generations())
}

// discard forgets what write has written.
func (s store) discard() error { return os.RemoveAll(s.newDir()) }

// clean removes what a crash left behind.
func (s store) clean() error {
	entries, err := os.ReadDir(s.generations())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			if err := os.RemoveAll(filepath.Join(s.generations(), entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// swap makes generation n the current one, in one step that a crash finds done
// or not done.
func (s store) swap(n int) error {
	if err := os.RemoveAll(s.newLink()); err != nil { // whatever it is
		return err
	}
	if _, err := s.clearLink(); err != nil {
		return err
	}
	// Relative, so that the state directory may be mounted elsewhere.
	if err := os.Symlink(filepath.Join("generations", dirName(n)), s.newLink()); err != nil {
		return err
	}
	if err := os.Rename(s.newLink(), s.link()); err != nil {
		return err
	}
	return syncFile(s.dir)
}

// current is the number of the generation that the link names, 0 when there is none.
func (s store) current() (int, error) {
	target, err := os.Readlink(s.link())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EINVAL): // nothing, or not a link
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read which generation is current: %w", err)
	}
	n, ok := parseNumber(filepath.Base(target))
	if !ok || !s.complete(n) {
		return 0, nil
	}
	return n, nil
}

// clearLink moves aside what is in the place of the link and is none: the rename in
// swap can't replace a directory. It returns where that is now, "" if there was none.
func (s store) clearLink() (aside string, err error) {
	info, err := os.Lstat(s.link())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink != 0:
		return "", nil
	}
	return disk.MoveAside(s.link())
}

// repair sets a current link that is missing or leads nowhere to the newest
// generation that nginx has served, else to the newest there is; without any there is
// no link. It returns that
// generation's number, 0 when there was nothing to do.
func (s store) repair() (int, error) {
	current, err := s.current()
	if err != nil || current != 0 {
		return 0, err
	}
	generations, err := s.list()
	if err != nil {
		return 0, err
	}
	if len(generations) == 0 {
		return 0, os.RemoveAll(s.link()) // nginx could hang on what it leads to
	}
	chosen := generations[0]
	if served := slices.IndexFunc(generations, wasServed); served >= 0 {
		chosen = generations[served]
	}
	return chosen.Number, s.swap(chosen.Number)
}

func wasServed(g Generation) bool { return !g.Served.IsZero() }

// next is the number for a new generation: one more than the highest on disk,
// complete or not, so that no number is ever used for two.
func (s store) next() (int, error) {
	numbers, err := s.numbers()
	if err != nil {
		return 0, err
	}
	if len(numbers) == 0 {
		return 1, nil
	}
	if numbers[0] == maxNumber {
		return 0, fmt.Errorf("generation %d has the highest number there can be: move its directory %s away", maxNumber, s.path(maxNumber))
	}
	return numbers[0] + 1, nil
}

// numbers of everything that has the name of a generation, the highest first.
func (s store) numbers() ([]int, error) {
	entries, err := os.ReadDir(s.generations())
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, entry := range entries {
		if n, ok := parseNumber(entry.Name()); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	return numbers, nil
}

func parseNumber(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n > 0 && n <= maxNumber && dirName(n) == name
}

func (s store) list() ([]Generation, error) {
	numbers, err := s.numbers()
	if err != nil {
		return nil, err
	}
	var generations []Generation
	for _, n := range numbers {
		if !s.complete(n) {
			continue
		}
		g, err := s.read(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned meanwhile
		}
		if err != nil {
			return nil, err
		}
		generations = append(generations, g)
	}
	return generations, nil
}

// complete is true when nginx could start from generation n. It would wait for ever to
// read a named pipe.
func (s store) complete(n int) bool {
	entries, err := os.ReadDir(s.path(n))
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if !entry.IsDir() && !entry.Type().IsRegular() {
			return false
		}
	}
	for _, name := range []string{MainFile, GenerationFile} {
		if info, err := os.Stat(filepath.Join(s.path(n), name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// read returns what is known about generation n. One whose generation.json is
// lost or broken can still be served: it only has nothing to tell.
func (s store) read(n int) (Generation, error) {
	info, err := os.Stat(s.path(n))
	if err != nil {
		return Generation{}, err
	}
	g := Generation{Created: info.ModTime()}
	if text, err := disk.ReadFile(filepath.Join(s.path(n), noteFile), maxNote); err == nil {
		if json.Unmarshal(text, &g) != nil {
			g = Generation{Created: info.ModTime()}
		}
	}
	g.Number = n
	return g, nil
}

// markServed remembers that nginx has answered from generation n.
func (s store) markServed(n int, now time.Time) error {
	g, err := s.read(n)
	if err != nil || wasServed(g) {
		return err
	}
	g.Served = now
	note, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(s.generations(), ".note")
	if err := os.RemoveAll(path); err != nil { // whatever it is
		return err
	}
	if err := os.WriteFile(path, append(note, '\n'), 0o644); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	// Not synced: losing it costs little, and it is on the way of every change.
	return os.Rename(path, filepath.Join(s.path(n), noteFile))
}

func (s store) files(n int) (map[string][]byte, error) {
	root := s.path(n)
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch name = filepath.ToSlash(name); name {
		case GenerationFile, noteFile:
			return nil
		}
		files[name], err = disk.ReadFile(path, maxFile)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("generation %d: %w", n, err)
	}
	return files, nil
}

// prune removes generations that nobody will want back: those beyond the newest
// keep that nginx has served, and all but the newest of those it never has (a
// configuration that fails at every retry must not push out the good ones). The
// ones in use stay.
func (s store) prune(keep int, inUse ...int) error {
	generations, err := s.list()
	if err != nil {
		return err
	}
	served, refused := 0, 0
	var failed []error
	for _, g := range generations {
		stay := false
		if wasServed(g) {
			served++
			stay = served <= keep
		} else {
			refused++
			stay = refused <= 1
		}
		if !stay && !slices.Contains(inUse, g.Number) {
			failed = append(failed, s.remove(g.Number))
		}
	}
	return errors.Join(failed...)
}

// remove takes a generation away in one step, and its files after that.
func (s store) remove(n int) error {
	doomed := filepath.Join(s.generations(), ".old-"+dirName(n))
	if err := os.Rename(s.path(n), doomed); err != nil {
		return err
	}
	return os.RemoveAll(doomed)
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// syncTree waits until a directory and everything in it are on the disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFile(path)
	})
}

func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}
