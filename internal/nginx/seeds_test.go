package nginx

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// read is what an nginx would find now: the content by upstream.
func (s *seeds) read(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	files, err := filepath.Glob(filepath.Join(s.path("now"), "*", "*.conf"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found[strings.TrimSuffix(filepath.Base(file), ".conf")] = string(text)
	}
	return found
}

func TestSeeds(t *testing.T) {
	a, b := "server 10.0.0.1:1;\n", "server 10.0.0.2:2;\n"
	known := func(names ...string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	write := func(servers map[string]string) func(*seeds) error {
		return func(s *seeds) error { return s.write(servers) }
	}
	hide := func(names ...string) func(*seeds) error {
		return func(s *seeds) error { return s.hide(known(names...)) }
	}
	// A crash leaves the files and nothing else; what comes after it is New's.
	crash := func(s *seeds) error {
		s.written = nil
		return s.recover()
	}
	all := map[string]string{"a": a, "b": b}
	tests := []struct {
		name string
		do   []func(*seeds) error
		want map[string]string // without what says that there are any
		none bool              // not even that
	}{
		{"an nginx that starts reads all", []func(*seeds) error{write(all)}, all, false},
		{"of an upstream that is gone nothing stays", []func(*seeds) error{write(all), write(map[string]string{"b": b})}, map[string]string{"b": b}, false},
		{"what changed is written", []func(*seeds) error{write(all), write(map[string]string{"a": b, "b": b})}, map[string]string{"a": b, "b": b}, false},
		{"at a reload those that nginx knows are hidden", []func(*seeds) error{write(all), hide("a")}, map[string]string{"b": b}, false},
		{"at a reload of an nginx that knows all, nothing says that there are any", []func(*seeds) error{write(all), hide("a", "b")}, map[string]string{}, true},
		{"what was hidden at the last reload is not at this one", []func(*seeds) error{write(all), hide("b"), hide("a")}, map[string]string{"b": b}, false},
		{"after a reload all are there again", []func(*seeds) error{write(all), hide("a", "b"), (*seeds).unhide}, all, false},
		{"what is written during a reload is for the next start", []func(*seeds) error{write(map[string]string{"a": a}), hide("a"), write(all), (*seeds).unhide}, all, false},
		{"nobody has given any", []func(*seeds) error{hide("a"), (*seeds).unhide}, map[string]string{}, true},
		{"a crash in the middle of a reload hides nothing from an nginx that starts", []func(*seeds) error{write(all), hide("a", "b"), crash}, all, false},
		{"what is not written anew stays after a crash, until it is", []func(*seeds) error{write(all), crash, write(map[string]string{"a": a})}, map[string]string{"a": a}, false},
		{"a reload before anything is written anew hides nothing", []func(*seeds) error{write(all), crash, hide("a", "b")}, all, false},
		{"what a crash left half written is not read", []func(*seeds) error{write(all), crash, func(s *seeds) error {
			half := seedFile(s.path("start"), "c") + ".new"
			return errors.Join(os.MkdirAll(filepath.Dir(half), 0o755), os.WriteFile(half, []byte("server"), 0o644))
		}, write(all)}, all, false},
		{"a crash before the first", []func(*seeds) error{crash}, map[string]string{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &seeds{dir: filepath.Join(t.TempDir(), "seeds")}
			for n, do := range tt.do {
				require.NoError(t, do(s), "step %d", n)
			}
			found := s.read(t)
			said, some := found[seededFile]
			assert.Equal(t, !tt.none, some, "nginx says that it has read any")
			if some {
				assert.Equal(t, seededConf, said)
			}
			delete(found, seededFile)
			assert.Equal(t, tt.want, found)
		})
	}
}

// TestASeedThatCantBeWritten has the disk refuse a file: what is there stays whole.
func TestASeedThatCantBeWritten(t *testing.T) {
	s := &seeds{dir: filepath.Join(t.TempDir(), "seeds")}
	require.NoError(t, s.write(map[string]string{"a": "server 10.0.0.1:1;\n"}))
	inTheWay := seedFile(s.path("start"), "a") + ".new"
	require.NoError(t, os.Mkdir(inTheWay, 0o755))
	require.Error(t, s.write(map[string]string{"a": "server 10.0.0.2:2;\n"}))
	assert.Equal(t, "server 10.0.0.1:1;\n", s.read(t)["a"])
	require.NoError(t, s.write(map[string]string{"a": "server 10.0.0.2:2;\n"}), "it is tried again")
	assert.Equal(t, "server 10.0.0.2:2;\n", s.read(t)["a"])
}
