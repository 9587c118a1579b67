package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// certificatesName is the directory in the state directory with the copies of certificates that
// nginx reads.
const certificatesName = "certificates"

// CertificatesDir is the directory with the copies of certificates that nginx's workers read.
func CertificatesDir(stateDir string) string { return filepath.Join(stateDir, certificatesName) }

// ownDirectories are the directories in the state directory that lbctl empties and
// replaces. The run directory must not be in them.
var ownDirectories = []string{"generations", "seeds", "current", certificatesName}

// makeDirectories makes both directories. It refuses paths with which the run directory
// would be the state directory or inside an own directory.
func makeDirectories(stateDir, runDir string) error {
	for _, dir := range []string{stateDir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create the directories of --state-dir and --run-dir: %w", err)
		}
	}
	state, err1 := filepath.EvalSymlinks(stateDir)
	run, err2 := filepath.EvalSymlinks(runDir)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("resolve the directories of --state-dir and --run-dir: %w", err)
	}
	if state == run {
		return fmt.Errorf("--run-dir %s is the state directory, want a separate directory, such as %s", runDir, RunDir(stateDir, ""))
	}
	for _, name := range ownDirectories {
		if own := filepath.Join(state, name); within(run, own) {
			return fmt.Errorf("--run-dir %s is in %s, which lbctl empties, want a separate directory, such as %s",
				runDir, own, RunDir(stateDir, ""))
		}
	}
	return nil
}

// within reports whether dir is parent or below it.
func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+string(filepath.Separator))
}
