package disk

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unfit makes things that are not regular files, by their names in errors.
var unfit = map[string]func(t *testing.T, path string){
	"a directory":  func(t *testing.T, path string) { require.NoError(t, os.MkdirAll(filepath.Join(path, "full"), 0o755)) },
	"a named pipe": func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o644)) },
	"a socket": func(t *testing.T, path string) {
		listener, err := net.Listen("unix", path)
		require.NoError(t, err)
		t.Cleanup(func() { listener.Close() })
	},
	"a device":                    func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) },
	"a symbolic link to /nowhere": func(t *testing.T, path string) { require.NoError(t, os.Symlink("/nowhere", path)) },
	"more than 8 bytes": func(t *testing.T, path string) {
		require.NoError(t, os.WriteFile(path, nil, 0o644))
		require.NoError(t, os.Truncate(path, 1<<40))
	},
}

func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "lb") // t.TempDir is too long for a socket's path
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestUnfit(t *testing.T) {
	for kind, create := range unfit {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "file")
			create(t, path)
			_, err := ReadFile(path, 8)
			require.ErrorIs(t, err, ErrUnfit)
			assert.ErrorContains(t, err, path)
			assert.ErrorContains(t, err, kind)
			if kind != "more than 8 bytes" {
				assert.ErrorIs(t, Append(path, []byte("x")), ErrUnfit)
			}

			aside, err := MoveAside(path)
			require.NoError(t, err)
			assert.Equal(t, path+".broken", aside)
			_, err = ReadFile(path, 8)
			assert.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, os.Mkdir(path, 0o755))
			aside, err = MoveAside(path)
			require.NoError(t, err)
			assert.Equal(t, path+".broken.2", aside, "a file moved aside earlier stays")

			create(t, path+".new")
			require.NoError(t, Replace(path, []byte("text")))
			require.NoError(t, Append(path, []byte(", more")))
			content, err := ReadFile(path, 10)
			require.NoError(t, err)
			assert.Equal(t, "text, more", string(content))
			_, err = ReadFile(path, 9)
			assert.ErrorIs(t, err, ErrUnfit)
		})
	}
}

func TestMoveAsideGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for range maxAside {
		require.NoError(t, os.WriteFile(path, nil, 0o644))
		_, err := MoveAside(path)
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	_, err := MoveAside(path)
	assert.ErrorContains(t, err, "remove them")
	assert.FileExists(t, path)
}

func TestClearAndDirectory(t *testing.T) {
	for kind, create := range unfit {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "path")
			create(t, path)
			aside, err := Clear(path)
			require.NoError(t, err)
			isFile := strings.HasPrefix(kind, "more")
			assert.Equal(t, isFile, aside == "")

			if aside != "" {
				create(t, path)
			}
			aside, err = Directory(path)
			switch kind {
			case "a device", "a symbolic link to /nowhere":
				assert.Error(t, err, "an operator may have made the symbolic link")
			case "a directory":
				assert.NoError(t, err)
				assert.Empty(t, aside)
			default:
				assert.NoError(t, err)
				assert.NotEmpty(t, aside)
				assert.DirExists(t, path)
			}
		})
	}
}
