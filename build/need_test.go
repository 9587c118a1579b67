// Package build_test tests the scripts in this directory.
package build_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The cluster runs an nginx that takes changes without a reload, also when an older one is
// on PATH. The tests use that older one too.
func TestNeedNginx(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	fetched := filepath.Join(root, "bin", "nginx-1.30")
	if _, err := os.Stat(fetched); err != nil {
		if os.Getenv("LB_TEST_REQUIRE") == "1" {
			t.Fatalf("LB_TEST_REQUIRE=1, but nginx 1.30 is missing: %v", err)
		}
		t.Skipf("no nginx 1.30: %v (make bin/nginx-1.30 fetches it)", err)
	}
	const onPath = "the one on PATH"
	for _, test := range []struct{ version, run, packaged string }{
		{"1.22.1", fetched, onPath},
		{"1.27.2", fetched, onPath},
		{"1.27.3", onPath, onPath},
		{"1.30.6", onPath, onPath},
	} {
		t.Run("nginx "+test.version+" on PATH", func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "nginx")
			script := fmt.Sprintf("#!/bin/sh\necho nginx version: nginx/%s >&2\n", test.version)
			require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
			for name, want := range map[string]string{"nginx": test.run, "nginx-packaged": test.packaged} {
				cmd := exec.Command(filepath.Join(root, "build", "need.sh"), name)
				cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				require.NoError(t, err, "need.sh %s: %s", name, &stderr)
				if want == onPath {
					want = path
				}
				assert.Equal(t, want, strings.TrimSpace(string(out)), "need.sh %s", name)
			}
		})
	}
}
