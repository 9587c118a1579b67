package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path+".new", []byte("what a crash left behind, which is longer"), 0o600))
	require.NoError(t, Replace(path, []byte("one, "), []byte("two")))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "one, two", string(b))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o644), info.Mode())

	require.NoError(t, Replace(path, []byte("three")))
	b, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "three", string(b))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, files, 1, "no temporary file is left")
}

func TestAFailedReplaceKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	require.NoError(t, os.Mkdir(path, 0o755))
	assert.Error(t, Replace(path, []byte("one")))
	assert.DirExists(t, path)
	assert.NoFileExists(t, path+".new")
	assert.ErrorIs(t, Replace(filepath.Join(dir, "nowhere", "file"), nil), os.ErrNotExist)
}
