package build_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lbctl warns of environment variables with its prefix that it doesn't know, and gets those
// of make and of the gate too, because they start it.
func TestScriptsHaveOnlyVariablesThatLbctlKnows(t *testing.T) {
	variable := regexp.MustCompile(`\bLBCTL_[A-Z][A-Z0-9_]*`)
	manual, err := os.ReadFile("../docs/cli.md")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, name := range variable.FindAllString(string(manual), -1) {
		known[name] = true
	}
	require.NotEmpty(t, known)

	var files []string
	for _, pattern := range []string{"../Makefile", "../.ci/run", "../*.yaml", "*.sh", "*/*.sh", "Dockerfile", "base/*"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		files = append(files, found...)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, name := range variable.FindAllString(string(text), -1) {
			assert.True(t, known[name], "%s has %s, which is not in docs/cli.md; a variable of this checkout begins with LB_", path, name)
		}
	}
}
