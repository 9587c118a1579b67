package render

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"lbctl/internal/disk"
	"lbctl/internal/nginx"
	"lbctl/templates"
)

const (
	suffix = ".ctmpl"
	// mainTemplate renders to nginx's main configuration file.
	mainTemplate = nginx.MainFile + suffix
	// maxTemplate bounds each template. The largest embedded one has some KiB.
	maxTemplate = 4 << 20
)

// templateSet has the templates in use, by slash path with suffix.
type templateSet map[string]*contents

// equal reports whether both sets have the same texts.
func (s templateSet) equal(other templateSet) bool {
	return maps.EqualFunc(s, other, func(a, b *contents) bool { return a.text == b.text })
}

// names returns the names of the templates that render to a file, in the order of
// rendering.
func (s templateSet) names() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), isPartial)
}

// partials returns the names of the templates that define blocks for the others, sorted.
func (s templateSet) partials() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(name string) bool { return !isPartial(name) })
}

// embedded returns the embedded templates.
var embedded = sync.OnceValues(func() (templateSet, error) {
	set := templateSet{}
	if err := set.add(templates.FS, templates.FS.ReadFile); err != nil {
		return nil, fmt.Errorf("read the embedded templates: %w", err)
	}
	return set, nil
})

// loadTemplates returns the embedded templates with those in dir, which replace embedded
// ones by name or are added. An empty dir means no directory.
func loadTemplates(dir string) (templateSet, error) {
	set, err := embedded()
	if err != nil {
		return nil, err
	}
	set = maps.Clone(set)
	if dir == "" {
		return set, nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("read the templates directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("templates directory %q is a file, want a directory with *%s files", dir, suffix)
	}
	read := func(name string) ([]byte, error) {
		return disk.ReadFile(filepath.Join(dir, filepath.FromSlash(name)), maxTemplate)
	}
	if err := set.add(os.DirFS(dir), read); err != nil {
		return nil, fmt.Errorf("read the templates directory %q: %w", dir, err)
	}
	return set, nil
}

// add adds the templates in from, whose contents read returns.
func (s templateSet) add(from fs.FS, read func(name string) ([]byte, error)) error {
	return fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(path.Base(name), ".") && name != "."
		if entry.IsDir() {
			if hidden {
				return fs.SkipDir // .git, or the ..data of a Kubernetes mount
			}
			return nil
		}
		if hidden || !strings.HasSuffix(name, suffix) {
			return nil
		}
		if nginx.IsReserved(strings.TrimSuffix(name, suffix)) {
			return errors.New("template " + name + " has the name of a file that lbctl writes itself, want another name")
		}
		content, err := read(name)
		if err != nil {
			return err
		}
		c := newContents(string(content))
		if isPartial(name) {
			if c.between, err = textBetween(c.text); err != nil {
				return fmt.Errorf("template %s: %w", name, err)
			}
		}
		s[name] = c
		return nil
	})
}
