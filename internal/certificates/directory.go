package certificates

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"lbctl/internal/disk"
)

const (
	// maxFile bounds each file. Large bundles of authorities have some 200 KiB.
	maxFile = 1 << 20
	// maxFiles bounds the files of a directory.
	maxFiles = 20000
)

var (
	certificateExtensions = []string{".pem", ".crt", ".cer"}
	namePattern           = regexp.MustCompile(`^[A-Za-z0-9_*][A-Za-z0-9._*+@-]{0,127}$`)
)

// Files with these extensions have authorities for clients; what is before is the host.
const (
	clientsExtension         = ".client-ca.pem"
	optionalClientsExtension = ".client-ca-optional.pem"
)

// found is what a directory has under one name: either a value, or the reason why the files
// can't be used.
type found[T any] struct {
	value T
	err   error
}

// contents has what a directory has, by name.
type contents struct {
	pairs   map[string]found[pair]
	clients map[string]found[Clients] // by host
	ignored map[string]error          // files with names that can't be used
}

// reader reads a directory again and again. It parses only files that have changed: with a
// thousand certificates that would take most of a second.
type reader struct {
	seen map[string]seen // by name
}

// seen is the result of the last reading, for files that looked like that.
type seen struct {
	stamp string
	found found[pair]
}

// read reads and checks all files of a directory.
func (r *reader) read(dir string) (contents, error) {
	c := contents{pairs: map[string]found[pair]{}, clients: map[string]found[Clients]{}, ignored: map[string]error{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, err
	}
	if len(entries) > maxFiles {
		return c, fmt.Errorf("it has %d files, want at most %d", len(entries), maxFiles)
	}
	certificates, keys := map[string][]string{}, map[string]bool{}
	for _, entry := range entries {
		file := entry.Name()
		if strings.HasPrefix(file, ".") || entry.IsDir() {
			continue
		}
		extension := filepath.Ext(file)
		name := strings.TrimSuffix(file, extension)
		switch {
		case strings.HasSuffix(file, clientsExtension), strings.HasSuffix(file, optionalClientsExtension):
			c.addClients(dir, file)
			continue
		case slices.Contains(certificateExtensions, extension):
			certificates[name] = append(certificates[name], file)
		case extension == ".key":
			keys[name] = true
		default:
			continue
		}
		var bad error
		switch {
		case !namePattern.MatchString(name):
			bad = errors.New(`want a name of letters, digits and "._*+@-"`)
		case strings.HasSuffix(name+".pem", clientsExtension), strings.HasSuffix(name+".pem", optionalClientsExtension):
			bad = fmt.Errorf("authorities for clients are in a file %q", name+".pem")
		default:
			continue
		}
		c.ignored[file] = bad
		delete(certificates, name)
		delete(keys, name)
	}
	before := r.seen
	r.seen = make(map[string]seen, len(certificates))
	for name, files := range certificates {
		now := seen{stamp: stamp(pathsOf(dir, files, name, keys[name])...)}
		if now.found = before[name].found; now.stamp == "" || now.stamp != before[name].stamp {
			p, err := readPair(dir, name, files, keys[name])
			now.found = found[pair]{p, err}
		}
		r.seen[name], c.pairs[name] = now, now.found
		delete(keys, name)
	}
	for name := range keys {
		c.pairs[name] = found[pair]{err: fmt.Errorf("%s.key has no certificate, want %s.crt beside it", name, name)}
	}
	return c, nil
}

// pathsOf returns the paths of the files of a pair.
func pathsOf(dir string, files []string, name string, key bool) (paths []string) {
	for _, file := range files {
		paths = append(paths, filepath.Join(dir, file))
	}
	if key {
		paths = append(paths, filepath.Join(dir, name+".key"))
	}
	return paths
}

// stamp describes files without reading them; "" if that is not possible.
func stamp(paths ...string) string {
	var text strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path) // of the target of a symbolic link
		if err != nil {
			return ""
		}
		fmt.Fprintf(&text, "%s %d %d", filepath.Base(path), info.ModTime().UnixNano(), info.Size())
		if system, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&text, " %d %d", system.Dev, system.Ino)
		}
		text.WriteByte(';')
	}
	return text.String()
}

func readPair(dir, name string, files []string, key bool) (pair, error) {
	if len(files) > 1 {
		return pair{}, fmt.Errorf("there are %s, want one of them", strings.Join(files, " and "))
	}
	text, err := disk.ReadFile(filepath.Join(dir, files[0]), maxFile)
	if err != nil {
		return pair{}, err
	}
	said := files[0]
	if key {
		more, err := disk.ReadFile(filepath.Join(dir, name+".key"), maxFile)
		if err != nil {
			return pair{}, err
		}
		text = append(append(text, '\n'), more...)
		said += " with " + name + ".key"
	}
	p, err := parsePair(text)
	if err != nil {
		return pair{}, fmt.Errorf("%s: %w", said, err)
	}
	p.Name = name
	return p, nil
}

// addClients reads a file with authorities for the clients of a host.
func (c *contents) addClients(dir, file string) {
	host, optional := strings.CutSuffix(file, optionalClientsExtension)
	if !optional {
		host = strings.TrimSuffix(file, clientsExtension)
	}
	host = strings.ToLower(host)
	if host != DefaultName && !hostPattern.MatchString(host) {
		c.ignored[file] = fmt.Errorf(`%q is no host name, want a file like "example.com%s", "*.example.com%s" or "%s%s"`,
			host, clientsExtension, clientsExtension, DefaultName, clientsExtension)
		return
	}
	if host == DefaultName {
		host = ""
	}
	if other, twice := c.clients[host]; twice {
		// Clients with a certificate are let in by both.
		other.value.Optional = false
		other.err = errors.Join(other.err, fmt.Errorf("there are files with both extensions, %s and %s, want one of them: client certificates are required",
			clientsExtension, optionalClientsExtension))
		c.clients[host] = other
		return
	}
	text, err := disk.ReadFile(filepath.Join(dir, file), maxFile)
	clients := Clients{Host: host, Optional: optional}
	if err == nil {
		clients.Authorities, err = parseAuthorities(text)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	c.clients[host] = found[Clients]{clients, err}
}
