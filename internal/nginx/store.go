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

// A Note is the caller's description of a configuration, stored with it.
type Note struct {
	Hash      string `json:"hash,omitempty"`   // of the files, computed by the caller
	Reason    string `json:"reason,omitempty"` // why the configuration was made
	Services  int    `json:"services"`         // number of services in it
	Instances int    `json:"instances"`        // number of instances that get traffic
	Change    string `json:"change,omitempty"` // "+1 -0 instances: hello_server"
	// Upstreams are the upstreams whose servers nginx asks for, sorted. nil: unknown,
	// because an older lbctl stored the generation.
	Upstreams []string `json:"upstreams,omitzero"`
	// ServiceNames are the services in it, sorted. nil: unknown, because an older lbctl stored the
	// generation.
	ServiceNames []string `json:"service_names,omitzero"`
}

// Limits for reading generations; sizes are in bytes. A directory with a higher number
// is not lbctl's: at one generation a second that takes 30 million years.
const (
	maxNumber = 1_000_000_000_000_000
	maxNote   = 1 << 20
	maxFile   = 256 << 20
)

// A Generation is a configuration on disk.
type Generation struct {
	Number  int       `json:"number"` // 1 is the first; 0 is none
	Created time.Time `json:"created"`
	Served  time.Time `json:"served,omitzero"` // when nginx first served it; zero: never
	Note
}

// Current returns the generation that nginx shall serve. Serving tells which one it
// does serve. Number is 0 if there is none yet.
func (i *Instance) Current() (Generation, error) {
	n, err := i.store.current()
	if err != nil || n == 0 {
		return Generation{}, err
	}
	return i.store.read(n)
}

// Generations returns the generations on disk, the newest first.
func (i *Instance) Generations() ([]Generation, error) { return i.store.list() }

// Files returns the files that Apply got for a generation, by name. The error is
// fs.ErrNotExist if there is no such generation, perhaps because it was removed.
func (i *Instance) Files(number int) (map[string][]byte, error) { return i.store.files(number) }

// store is the part of the state directory with generations. rename(2) adds each of
// them, when it is complete and on disk. Names that start with a dot are incomplete.
type store struct{ dir string }

func (s store) generations() string { return filepath.Join(s.dir, "generations") }
func (s store) link() string        { return filepath.Join(s.dir, "current") }
func (s store) newLink() string     { return filepath.Join(s.dir, ".current.new") }
func (s store) newDir() string      { return filepath.Join(s.generations(), ".new") }

func dirName(n int) string { return fmt.Sprintf("%06d", n) }

func (s store) path(n int) string { return filepath.Join(s.generations(), dirName(n)) }

// write stores a generation under a temporary name; publish makes it one of the
// generations.
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

// discard removes the files that write has written.
func (s store) discard() error { return os.RemoveAll(s.newDir()) }

// clean removes incomplete generations, which a crash left behind.
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

// swap makes generation n the current one, in one step: a crash leaves the old link or
// the new one.
func (s store) swap(n int) error {
	if err := os.RemoveAll(s.newLink()); err != nil { // may be of any type
		return err
	}
	if _, err := s.clearLink(); err != nil {
		return err
	}
	// Relative, so that the state directory can be mounted at another path.
	if err := os.Symlink(filepath.Join("generations", dirName(n)), s.newLink()); err != nil {
		return err
	}
	if err := os.Rename(s.newLink(), s.link()); err != nil {
		return err
	}
	return syncFile(s.dir)
}

// current is the number of the generation that the link points to, 0 if there is none.
func (s store) current() (int, error) {
	target, err := os.Readlink(s.link())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EINVAL): // no file, or not a link
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read the link to the current generation: %w", err)
	}
	n, ok := parseNumber(filepath.Base(target))
	if !ok || !s.complete(n) {
		return 0, nil
	}
	return n, nil
}

// clearLink moves aside what is at the link's path unless it is a symbolic link,
// because the rename in swap can't replace a directory. aside is the new path, "" if
// nothing was moved.
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

// repair sets a missing or broken current link to the newest generation that nginx has
// served, else to the newest one. Without any generation it removes the link. It
// returns the number of the generation, 0 if it set no link.
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
		return 0, os.RemoveAll(s.link()) // nginx could block on the file it leads to
	}
	chosen := generations[0]
	if served := slices.IndexFunc(generations, wasServed); served >= 0 {
		chosen = generations[served]
	}
	return chosen.Number, s.swap(chosen.Number)
}

func wasServed(g Generation) bool { return !g.Served.IsZero() }

// next is the number for a new generation: one more than the highest on disk, complete
// or not, so that no number is used twice.
func (s store) next() (int, error) {
	numbers, err := s.numbers()
	if err != nil {
		return 0, err
	}
	if len(numbers) == 0 {
		return 1, nil
	}
	if numbers[0] == maxNumber {
		return 0, fmt.Errorf("generation %d has the highest possible number: move its directory %s away", maxNumber, s.path(maxNumber))
	}
	return numbers[0] + 1, nil
}

// numbers returns the numbers of all directories named like a generation, the highest
// first.
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
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		generations = append(generations, g)
	}
	return generations, nil
}

// complete reports whether nginx can start with generation n. All its files must be
// regular, because nginx would wait for ever for data from a named pipe.
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

// read returns the description of generation n. A generation whose generation.json is
// missing or broken can still be served; only its description is lost.
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

// markServed records that nginx has served generation n.
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
	if err := os.RemoveAll(path); err != nil { // may be of any type
		return err
	}
	if err := os.WriteFile(path, append(note, '\n'), 0o644); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	// Not synced: the loss costs little, and the sync would delay every change.
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

// prune removes old generations. It keeps those in use, the newest keep generations
// that nginx has served, and the newest one that nginx has never served. It counts the
// two kinds separately, so that a configuration that fails at every retry does not
// push out the good ones.
func (s store) prune(keep int, inUse ...int) error {
	generations, err := s.list()
	if err != nil {
		return err
	}
	served, refused := 0, 0
	var failed []error
	for _, g := range generations {
		kept := false
		if wasServed(g) {
			served++
			kept = served <= keep
		} else {
			refused++
			kept = refused <= 1
		}
		if !kept && !slices.Contains(inUse, g.Number) {
			failed = append(failed, s.remove(g.Number))
		}
	}
	return errors.Join(failed...)
}

// remove removes a generation in one step, and then its files.
func (s store) remove(n int) error {
	removed := filepath.Join(s.generations(), ".old-"+dirName(n))
	if err := os.Rename(s.path(n), removed); err != nil {
		return err
	}
	return os.RemoveAll(removed)
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

// syncTree syncs a directory and everything in it to the disk.
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
