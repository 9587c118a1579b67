package certificates

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lbctl/internal/disk"
)

const (
	// maxNamed bounds each file that a policy names: bundles of authorities can be large.
	maxNamed = 4 << 20
	// forgotten is how long a file is still read that no policy names any more. A policy that
	// nginx has refused because of its files counts as such.
	forgotten = time.Hour
	// namedAfterlife is how long a copy of such a file stays on disk: an earlier configuration
	// that the operator goes back to can need it.
	namedAfterlife = 30 * 24 * time.Hour
)

// The copies of files that policies name have these extensions.
const (
	namedAuthoritiesExtension = ".policy-ca"
	namedPairExtension        = ".policy-pair"
)

// Named are files that a policy names, for TLS between nginx and instances.
type Named struct {
	CA   string // the authorities of the instances; empty: none
	Pair PairPaths
}

// PairPaths are the files of a certificate and its key; without one of them there is no pair.
type PairPaths struct{ Certificate, Key string }

func (p PairPaths) complete() bool { return p.Certificate != "" && p.Key != "" }

// NamedAuthorities is what a file with authorities has.
type NamedAuthorities struct {
	// PEM has the last good certificates; empty: there were none.
	PEM     []byte
	Problem string // why the file itself is not used
}

// NamedPair is what the files of a pair have.
type NamedPair struct {
	// File is the copy of the last good certificate and key, for nginx; empty: there were none.
	// A renewed pair has the same File.
	File     string
	Sum      string // of the content of File
	NotAfter time.Time
	Problem  string // why the files themselves are not used, or an expiry
}

// Knows reports whether the set has what the named files have.
func (s Set) Knows(n Named) bool {
	_, ca := s.NamedAuthorities[n.CA]
	_, pair := s.NamedPairs[n.Pair]
	return (ca || n.CA == "") && (pair || !n.Pair.complete())
}

// Mends reports whether the set has good content of a file that an earlier one has none of.
func (s Set) Mends(earlier Set) bool {
	for path, now := range s.NamedAuthorities {
		if before, known := earlier.NamedAuthorities[path]; known && len(before.PEM) == 0 && len(now.PEM) > 0 {
			return true
		}
	}
	for paths, now := range s.NamedPairs {
		if before, known := earlier.NamedPairs[paths]; known && before.File == "" && now.File != "" {
			return true
		}
	}
	return false
}

// namedAuthorities and namedPair have what was read last.
type (
	namedAuthorities struct {
		NamedAuthorities
		memory
	}
	namedPair struct {
		pair
		file    string
		problem string
		memory
	}
	memory struct {
		stamp  string    // of the files when they were read; empty: read them again
		wanted time.Time // when they were named last
	}
)

// readNamed reads the wanted files, and those that were wanted until a short time ago.
func (s *Store) readNamed(wanted []Named, now time.Time, set *Set) {
	for _, n := range wanted {
		if n.CA != "" {
			s.namedCA(n.CA).wanted = now
		}
		if n.Pair.complete() {
			s.namedPair(n.Pair).wanted = now
		}
	}
	maps.DeleteFunc(s.namedCAs, func(_ string, n *namedAuthorities) bool { return now.Sub(n.wanted) > forgotten })
	maps.DeleteFunc(s.namedPairs, func(_ PairPaths, n *namedPair) bool { return now.Sub(n.wanted) > forgotten })
	set.NamedAuthorities = make(map[string]NamedAuthorities, len(s.namedCAs))
	for path, n := range s.namedCAs {
		s.readNamedCA(path, n)
		set.NamedAuthorities[path] = n.NamedAuthorities
	}
	set.NamedPairs = make(map[PairPaths]NamedPair, len(s.namedPairs))
	for paths, n := range s.namedPairs {
		s.readNamedPair(paths, n, now)
		set.NamedPairs[paths] = n.result(now)
	}
}

// namedCA returns what is known of a file with authorities: at first the copy of an earlier Store.
func (s *Store) namedCA(path string) *namedAuthorities {
	n, known := s.namedCAs[path]
	if known {
		return n
	}
	n = new(namedAuthorities)
	if copied, err := s.readCopy(namedFile(namedAuthoritiesExtension, path)); err == nil {
		n.PEM, _ = parseAuthorities(copied) // a broken copy is none
	}
	s.namedCAs[path] = n
	return n
}

// namedPair does the same for a certificate and its key.
func (s *Store) namedPair(paths PairPaths) *namedPair {
	n, known := s.namedPairs[paths]
	if known {
		return n
	}
	n = new(namedPair)
	file := namedFile(namedPairExtension, paths.Certificate, paths.Key)
	if copied, err := s.readCopy(file); err == nil {
		if p, _, err := parseKeyPair(copied); err == nil {
			n.pair, n.file = p, filepath.Join(s.opts.Copies, file)
		}
	}
	s.namedPairs[paths] = n
	return n
}

func (s *Store) readCopy(file string) ([]byte, error) {
	if s.opts.ReadOnly {
		return nil, fs.ErrNotExist
	}
	return disk.ReadFile(filepath.Join(s.opts.Copies, file), 2*maxNamed)
}

// namedFile is the file name of the copy of files: any path can become one.
func namedFile(extension string, paths ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(paths, "\x00")))
	return hex.EncodeToString(sum[:16]) + extension
}

// readNamedCA reads a file with authorities, if it has changed.
func (s *Store) readNamedCA(path string, n *namedAuthorities) {
	now := stamp(path)
	if now != "" && now == n.stamp {
		return
	}
	n.stamp, n.Problem = now, ""
	authorities, err := readAuthorities(path)
	switch {
	case err != nil && len(n.PEM) > 0:
		n.Problem = err.Error() + "; the former authorities stay in use"
	case err != nil:
		n.Problem = err.Error()
	case string(authorities) != string(n.PEM):
		n.PEM = authorities
		if err := s.writeCopy(namedFile(namedAuthoritiesExtension, path), authorities); err != nil {
			n.stamp, n.Problem = "", fmt.Sprintf("copy it: %v", err)
		}
	}
}

func readAuthorities(path string) ([]byte, error) {
	text, err := disk.ReadFile(path, maxNamed)
	if err != nil {
		return nil, fmt.Errorf("it can't be read: %w", shortPathError(err))
	}
	return parseAuthorities(text)
}

// readNamedPair reads a certificate and its key, if they have changed. One that can't be used does
// not replace a good one.
func (s *Store) readNamedPair(paths PairPaths, n *namedPair, now time.Time) {
	at := stamp(paths.Certificate, paths.Key)
	if at != "" && at == n.stamp {
		return
	}
	n.stamp, n.problem = at, ""
	p, err := readFiles(paths)
	if err == nil && string(p.pem) == string(n.pem) {
		return
	}
	has := n.file != ""
	if err == nil && has && n.valid(now) && !p.valid(now) {
		n.stamp = "" // it may become valid
		err = fmt.Errorf("the new certificate: %s", p.invalid(now))
	}
	file := namedFile(namedPairExtension, paths.Certificate, paths.Key)
	if err == nil {
		if err = s.writeCopy(file, p.pem); err == nil {
			n.pair, n.file = p, filepath.Join(s.opts.Copies, file)
			return
		}
		n.stamp, err = "", fmt.Errorf("copy it for nginx: %w", err)
	}
	n.problem = err.Error()
	if has {
		n.problem += "; " + n.stays()
	}
}

// readFiles reads and checks a certificate and its key. Both can be in one file.
func readFiles(paths PairPaths) (pair, error) {
	var text []byte
	for _, part := range []struct{ path, kind string }{{paths.Certificate, "CERTIFICATE"}, {paths.Key, "PRIVATE KEY"}} {
		content, err := disk.ReadFile(part.path, maxNamed)
		if err != nil {
			return pair{}, fmt.Errorf("%q can't be read: %w", part.path, shortPathError(err))
		}
		blocks, err := decode(content)
		if err != nil {
			return pair{}, fmt.Errorf("%q: %w", part.path, err)
		}
		blocks = slices.DeleteFunc(blocks, func(b *pem.Block) bool { return !strings.HasSuffix(b.Type, part.kind) })
		if len(blocks) == 0 {
			return pair{}, fmt.Errorf("%q has no %s in PEM", part.path, strings.ToLower(part.kind))
		}
		if len(blocks) > 1 && part.kind == "PRIVATE KEY" {
			return pair{}, fmt.Errorf("%q has %d keys, want one", part.path, len(blocks))
		}
		for _, block := range blocks {
			text = append(text, pem.EncodeToMemory(block)...)
		}
	}
	p, _, err := parseKeyPair(text)
	return p, err
}

// shortPathError leaves out the path of an error, which the reader knows.
func shortPathError(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func (n *namedPair) result(now time.Time) NamedPair {
	r := NamedPair{File: n.file, NotAfter: n.NotAfter, Problem: n.problem}
	if n.file == "" {
		return r
	}
	sum := sha256.Sum256(n.pem)
	r.Sum = hex.EncodeToString(sum[:8])
	if r.Problem == "" {
		r.Problem = n.expirySoon(now)
	}
	return r
}

// expirySoon is expiry for a certificate that may live shorter than WarnBefore: then only the last
// third of its time counts.
func (n *namedPair) expirySoon(now time.Time) string {
	if third := n.NotAfter.Sub(n.NotBefore) / 3; third < WarnBefore {
		return n.expiry(now, third, "a third of its time")
	}
	return n.expiry(now, WarnBefore, "two weeks")
}

func (s *Store) writeCopy(file string, content []byte) error {
	if s.opts.ReadOnly {
		return nil
	}
	return disk.ReplaceSecret(filepath.Join(s.opts.Copies, file), s.opts.Group, content)
}

// namedCopies are the files in the directory of copies that belong to files that policies name.
func (s *Store) namedCopies() map[string]bool {
	copies := make(map[string]bool, len(s.namedCAs)+len(s.namedPairs))
	for path := range s.namedCAs {
		copies[namedFile(namedAuthoritiesExtension, path)] = true
	}
	for paths := range s.namedPairs {
		copies[namedFile(namedPairExtension, paths.Certificate, paths.Key)] = true
	}
	return copies
}

// isNamedCopy reports whether a file in the directory of copies is, or was, of a file that a
// policy names.
func isNamedCopy(file string) bool {
	extension := filepath.Ext(file)
	return extension == namedAuthoritiesExtension || extension == namedPairExtension
}
