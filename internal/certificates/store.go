package certificates

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"lbctl/internal/disk"
)

const (
	// absence is how long a file may be away before its certificate is given up: some tools
	// remove a file and write it again.
	absence = 5 * time.Second
	// afterlife is how long a copy stays on disk after its certificate was given up. nginx
	// may read it until it has another configuration.
	afterlife = time.Hour
)

// Options say where certificates are.
type Options struct {
	// Dir is the operator's directory; default none.
	Dir string
	// Copies is the directory for the copies, which nginx's workers read.
	Copies string
	// Group is the id of the group that may read the copies; -1: nobody but their owner.
	Group int
	// ReadOnly: nothing is written to Copies, and nothing is read from it.
	ReadOnly bool
}

// Store has the last good certificates of a directory, and of the files that policies name. Only one goroutine may use it at a time.
type Store struct {
	opts    Options
	reader  reader
	hidden  string             // a directory that Group can't enter, so that it can't read the copies
	pairs   map[string]pair    // the last good ones, by name
	clients map[string]Clients // the last good ones, by host
	away    map[string]time.Time
	cleaned map[string]time.Time // since when a copy has no certificate

	namedCAs   map[string]*namedAuthorities // by path
	namedPairs map[PairPaths]*namedPair
}

// Open returns a Store with the copies of an earlier one. A copy that can't be used is left
// out: it is written again from the operator's files.
func Open(opts Options) (*Store, error) {
	s := &Store{
		opts: opts, pairs: map[string]pair{}, clients: map[string]Clients{},
		away: map[string]time.Time{}, cleaned: map[string]time.Time{},
		namedCAs: map[string]*namedAuthorities{}, namedPairs: map[PairPaths]*namedPair{},
	}
	if opts.ReadOnly {
		return s, nil
	}
	if err := s.makeDirectory(); err != nil {
		return nil, fmt.Errorf("make the directory for copies of certificates: %w", err)
	}
	s.hidden = s.findHidden()
	if opts.Dir == "" {
		return s, nil
	}
	kept, err := new(reader).read(opts.Copies)
	if err != nil {
		return nil, fmt.Errorf("read the copies of certificates: %w", err)
	}
	for name, p := range kept.pairs {
		if p.err == nil {
			p.value.File = s.copyOf(name)
			s.pairs[name] = p.value
			s.away["pair "+name] = time.Time{} // it may have been given up: nginx's copy outlives it
		}
	}
	for host, c := range kept.clients {
		if c.err == nil {
			s.clients[host] = c.value
		}
	}
	return s, nil
}

// makeDirectory makes the directory of copies, which only the group may enter. Copies of an
// earlier lbctl may have another group.
func (s *Store) makeDirectory() error {
	if _, err := disk.Directory(s.opts.Copies); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.opts.Copies)
	if err != nil {
		return err
	}
	errs := []error{s.protect(s.opts.Copies, 0o750)}
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			errs = append(errs, s.protect(filepath.Join(s.opts.Copies, entry.Name()), 0o640))
		}
	}
	return errors.Join(errs...)
}

// protect gives a file to the group, with the mode; without a group only its owner keeps rights.
func (s *Store) protect(path string, mode os.FileMode) error {
	if s.opts.Group < 0 {
		return os.Chmod(path, mode&0o700)
	}
	if err := os.Chown(path, -1, s.opts.Group); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// findHidden returns a directory above the copies that the group can't enter, "" if there is
// none.
func (s *Store) findHidden() string {
	if s.opts.Group < 0 {
		return "" // the reader is the owner
	}
	for dir := filepath.Dir(s.opts.Copies); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return dir
		}
		system, ok := info.Sys().(*syscall.Stat_t)
		ofGroup := ok && int(system.Gid) == s.opts.Group && info.Mode()&0o010 != 0
		if info.Mode()&0o001 == 0 && !ofGroup {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func (s *Store) copyOf(name string) string { return filepath.Join(s.opts.Copies, name+".pem") }

// Read reads the directory and the wanted files, and returns the set for the time. What can't be
// used keeps its last good copy; the set says so.
func (s *Store) Read(now time.Time, wanted ...Named) Set {
	var set Set
	now = now.Round(0)
	if s.opts.Dir != "" {
		s.readDirectory(now, &set)
	}
	s.readNamed(wanted, now, &set)
	if !s.opts.ReadOnly {
		if err := s.clean(now); err != nil {
			set.problem("", "old copies can't be removed: %v", err)
		}
	}
	set.Hidden = s.hidden != ""
	set.arrange(now)
	return set
}

func (s *Set) problem(name, format string, args ...any) {
	s.Problems = append(s.Problems, Problem{Name: name, Message: fmt.Sprintf(format, args...)})
}

// readDirectory reads the directory.
func (s *Store) readDirectory(now time.Time, set *Set) {
	if s.hidden != "" {
		set.problem("", "nginx's workers can't enter %q, so they can't read certificates: want a directory that everybody may enter (chmod o+x)", s.hidden)
	}
	found, err := s.reader.read(s.opts.Dir)
	switch {
	case err != nil:
		set.problem("", "directory %q can't be read: %v; the former certificates stay in use", s.opts.Dir, err)
	case len(found.pairs) == 0 && len(s.pairs) > 0:
		set.problem("", "directory %q has no certificate any more; the former ones stay in use", s.opts.Dir)
	case len(found.pairs) == 0:
		set.problem("", "directory %q has no certificate, want pairs like example.com.crt and example.com.key", s.opts.Dir)
	default:
		for name := range s.pairs {
			if _, ok := found.pairs[name]; !ok && s.gone("pair "+name, now) {
				delete(s.pairs, name)
			}
		}
		for name := range found.pairs {
			delete(s.away, "pair "+name)
		}
	}
	// A directory without certificates may be one that lost its file system: that must let nobody in.
	if err == nil && len(found.pairs) > 0 {
		if err := s.dropClients(found, now); err != nil {
			set.problem("", "old copies can't be removed: %v", err)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(found.ignored)) {
		set.problem("", "file %q is not used: %v", file, found.ignored[file])
	}
	for _, name := range slices.Sorted(maps.Keys(found.pairs)) {
		if err := s.take(name, found.pairs[name], now); err != nil {
			set.problem(name, "%v", err)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(found.clients)) {
		if err := s.takeClients(host, found.clients[host]); err != nil {
			set.problem(hostName(host), "%v", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.pairs)) {
		c := s.pairs[name].Certificate
		set.Certificates = append(set.Certificates, c)
		if why := c.expiry(now, WarnBefore, "two weeks"); why != "" {
			set.problem(name, "%s", why)
		}
	}
	set.Clients = slices.Collect(maps.Values(s.clients))
}

func hostName(host string) string {
	if host == "" {
		return DefaultName
	}
	return host
}

// gone reports whether something has been away for long enough to be given up.
func (s *Store) gone(what string, now time.Time) bool {
	since, known := s.away[what]
	if !known {
		s.away[what] = now
		return false
	}
	if now.Sub(since) < absence {
		return false
	}
	delete(s.away, what)
	return true
}

// take makes a pair of the directory the current one of its name, if it may be that. The error
// says why it isn't.
func (s *Store) take(name string, p found[pair], now time.Time) error {
	kept, has := s.pairs[name]
	if p.err != nil {
		if has {
			return fmt.Errorf("%w; %s", p.err, kept.stays())
		}
		return p.err
	}
	if has && string(kept.pem) == string(p.value.pem) {
		return nil
	}
	if has && kept.valid(now) && !p.value.valid(now) {
		return fmt.Errorf("the new certificate: %s; %s", p.value.invalid(now), kept.stays())
	}
	p.value.File = s.copyOf(name)
	if !s.opts.ReadOnly {
		if err := disk.ReplaceSecret(p.value.File, s.opts.Group, p.value.pem); err != nil {
			return fmt.Errorf("copy it for nginx: %w", err)
		}
	}
	s.pairs[name] = p.value
	return nil
}

func (c Certificate) stays() string {
	return fmt.Sprintf("the former certificate, which is valid until %s, stays in use", c.NotAfter.UTC().Format("2006-01-02 15:04 UTC"))
}

// dropClients gives up authorities whose files are away. It removes their copies, which nginx does
// not read, so that a later Store does not take them for the last good ones.
func (s *Store) dropClients(found contents, now time.Time) error {
	var errs []error
	for host, c := range s.clients {
		if _, ok := found.clients[host]; ok || !s.gone("clients "+host, now) {
			continue
		}
		delete(s.clients, host)
		if !s.opts.ReadOnly {
			errs = append(errs, remove(filepath.Join(s.opts.Copies, c.FileName())))
		}
	}
	for host := range found.clients {
		delete(s.away, "clients "+host)
	}
	return errors.Join(errs...)
}

// remove removes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// takeClients makes authorities of the directory the current ones of their host. Without usable
// ones the host keeps the former, or lets nobody in.
func (s *Store) takeClients(host string, c found[Clients]) error {
	kept, has := s.clients[host]
	has = has && len(kept.Authorities) > 0
	if c.err != nil && has {
		kept.Optional = kept.Optional && c.value.Optional
		s.clients[host] = kept
		return fmt.Errorf("%w; the former authorities stay in use", c.err)
	}
	if c.err != nil {
		s.clients[host] = Clients{Host: host, Optional: c.value.Optional}
		return fmt.Errorf("%w; no client of this host is let in", c.err)
	}
	same := has && string(kept.Authorities) == string(c.value.Authorities) && kept.Optional == c.value.Optional
	if !same && !s.opts.ReadOnly {
		if err := s.copyClients(c.value); err != nil {
			return fmt.Errorf("copy the authorities: %w", err)
		}
	}
	s.clients[host] = c.value
	return nil
}

func (s *Store) copyClients(c Clients) error {
	other := Clients{Host: c.Host, Optional: !c.Optional}
	if err := remove(filepath.Join(s.opts.Copies, other.FileName())); err != nil {
		return err
	}
	return disk.ReplaceSecret(filepath.Join(s.opts.Copies, c.FileName()), s.opts.Group, c.Authorities)
}

// clean removes copies that have had no certificate for some time.
func (s *Store) clean(now time.Time) error {
	entries, err := os.ReadDir(s.opts.Copies)
	if err != nil {
		return err
	}
	inUse := s.namedCopies()
	var errs []error
	for _, entry := range entries {
		file := entry.Name()
		named := isNamedCopy(file)
		if inUse[file] || !named && s.uses(file) {
			delete(s.cleaned, file)
			continue
		}
		keep := afterlife
		if named {
			keep = namedAfterlife
		}
		since, known := s.cleaned[file]
		if !known {
			s.cleaned[file] = now
			continue
		}
		if now.Sub(since) >= keep {
			errs = append(errs, os.RemoveAll(filepath.Join(s.opts.Copies, file)))
			delete(s.cleaned, file)
		}
	}
	return errors.Join(errs...)
}

// uses reports whether a file in the directory of copies belongs to the set.
func (s *Store) uses(file string) bool {
	for _, optional := range []bool{false, true} {
		host, ok := strings.CutSuffix(file, extensionOfClients(optional))
		if !ok {
			continue
		}
		if host == DefaultName {
			host = ""
		}
		c, has := s.clients[host]
		return has && c.Optional == optional
	}
	_, has := s.pairs[strings.TrimSuffix(file, ".pem")]
	return has
}
