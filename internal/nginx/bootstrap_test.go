package nginx

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// read returns the files that nginx would read now, by upstream.
func (b *bootstrap) read(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	files, err := filepath.Glob(filepath.Join(b.path("now"), "*", "*.conf"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found[strings.TrimSuffix(filepath.Base(file), ".conf")] = string(text)
	}
	return found
}

func TestBootstrapServers(t *testing.T) {
	a, b := "server 10.0.0.1:1;\n", "server 10.0.0.2:2;\n"
	known := func(names ...string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	write := func(servers map[string]string) func(*bootstrap) error {
		return func(s *bootstrap) error {
			failed, err := s.write(servers)
			return errors.Join(append(slices.Collect(maps.Values(failed)), err)...)
		}
	}
	hide := func(names ...string) func(*bootstrap) error {
		return func(s *bootstrap) error { return s.hide(known(names...)) }
	}
	// A crash leaves only the files; the rest comes from New.
	crash := func(s *bootstrap) error {
		s.written = nil
		return s.restore()
	}
	all := map[string]string{"a": a, "b": b}
	tests := []struct {
		name string
		do   []func(*bootstrap) error
		want map[string]string // the servers, without the marker
		none bool              // no marker either
	}{
		{"a starting nginx reads all", []func(*bootstrap) error{write(all)}, all, false},
		{"the file of a removed upstream is removed", []func(*bootstrap) error{write(all), write(map[string]string{"b": b})}, map[string]string{"b": b}, false},
		{"changed servers are written", []func(*bootstrap) error{write(all), write(map[string]string{"a": b, "b": b})}, map[string]string{"a": b, "b": b}, false},
		{"a reload hides known upstreams", []func(*bootstrap) error{write(all), hide("a")}, map[string]string{"b": b}, false},
		{"a reload without unknown upstreams hides the marker", []func(*bootstrap) error{write(all), hide("a", "b")}, map[string]string{}, true},
		{"each reload hides its own upstreams", []func(*bootstrap) error{write(all), hide("b"), hide("a")}, map[string]string{"b": b}, false},
		{"after a reload all files are back", []func(*bootstrap) error{write(all), hide("a", "b"), (*bootstrap).unhide}, all, false},
		{"files written during a reload are for the next start", []func(*bootstrap) error{write(map[string]string{"a": a}), hide("a"), write(all), (*bootstrap).unhide}, all, false},
		{"no servers were ever written", []func(*bootstrap) error{hide("a"), (*bootstrap).unhide}, map[string]string{}, true},
		{"after a crash during a reload a starting nginx reads all", []func(*bootstrap) error{write(all), hide("a", "b"), crash}, all, false},
		{"after a crash old files stay until they are written again", []func(*bootstrap) error{write(all), crash, write(map[string]string{"a": a})}, map[string]string{"a": a}, false},
		{"a reload before the first write hides nothing", []func(*bootstrap) error{write(all), crash, hide("a", "b")}, all, false},
		{"a half-written file is not read", []func(*bootstrap) error{write(all), crash, func(s *bootstrap) error {
			half := bootstrapFile(s.path(startSet), "c") + ".new"
			return errors.Join(os.MkdirAll(filepath.Dir(half), 0o755), os.WriteFile(half, []byte("server"), 0o644))
		}, write(all)}, all, false},
		{"a crash before the first write", []func(*bootstrap) error{crash}, map[string]string{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &bootstrap{dir: filepath.Join(t.TempDir(), "seeds"), logger: slog.New(slog.DiscardHandler)}
			for n, do := range tt.do {
				require.NoError(t, do(s), "step %d", n)
			}
			found := s.read(t)
			said, some := found[markerFile]
			assert.Equal(t, !tt.none, some, "nginx says that it has read bootstrap servers")
			if some {
				assert.Regexp(t, `^location = /seeded \{ return 200 "(start|\d+)\\n"; \}\n$`, said)
			}
			delete(found, markerFile)
			assert.Equal(t, tt.want, found)
		})
	}
}

// TestAFileThatCantBeWrittenAffectsItsUpstreamOnly has a file that can't be written. The old
// file stays complete, the other upstreams' files are written, and the error names the
// upstream.
func TestAFileThatCantBeWrittenAffectsItsUpstreamOnly(t *testing.T) {
	b := &bootstrap{dir: filepath.Join(t.TempDir(), "seeds"), logger: slog.New(slog.DiscardHandler)}
	write := func(lines string) map[string]error {
		failed, err := b.write(map[string]string{"a": lines, "b": lines, "c": lines})
		require.NoError(t, err)
		return failed
	}
	old, new := "server 10.0.0.1:1;\n", "server 10.0.0.2:2;\n"
	assert.Empty(t, write(old))
	require.NoError(t, os.Mkdir(bootstrapFile(b.path(startSet), "a")+".new", 0o755)) // it is in the way
	failed := write(new)
	assert.Error(t, failed["a"])
	assert.Len(t, failed, 1)
	assert.Equal(t, map[string]string{"a": old, "b": new, "c": new}, without(b.read(t), markerFile))
	assert.Empty(t, write(new), "it is tried again")
	assert.Equal(t, new, b.read(t)["a"])
}

func without(m map[string]string, key string) map[string]string {
	delete(m, key)
	return m
}

// TestBootstrapFilesInUseAreKnownFromNginxsAnswer maps nginx's answer to the files that it has
// read. The files of its start are unknown; those of a reload are known, also to the next
// lbctl.
func TestBootstrapFilesInUseAreKnownFromNginxsAnswer(t *testing.T) {
	b := &bootstrap{dir: filepath.Join(t.TempDir(), "seeds"), logger: slog.New(slog.DiscardHandler)}
	_, err := b.write(map[string]string{"a": "server 10.0.0.1:1;\n", "b": "server 10.0.0.2:2;\n"})
	require.NoError(t, err)
	of := func(b *bootstrap, set string) map[string]string {
		t.Helper()
		servers, err := b.serversIn(set)
		require.NoError(t, err)
		return servers
	}
	unknown := map[string]string{"a": "", "b": ""}
	assert.Equal(t, unknown, of(b, startSet))
	assert.Equal(t, unknown, of(b, "seeded"), "nginx started under an older lbctl")

	require.NoError(t, b.hide(func(upstream string) bool { return upstream == "a" }))
	require.NoError(t, b.unhide())
	require.Len(t, b.shown, 1)
	for set := range b.shown {
		read := map[string]string{"b": "server 10.0.0.2:2;\n"}
		assert.Equal(t, read, of(b, set))
		again := &bootstrap{dir: b.dir, logger: b.logger}
		assert.Equal(t, read, of(again, set), "another lbctl")
		assert.Equal(t, unknown, of(again, "1"), "an unknown set")
	}
}
