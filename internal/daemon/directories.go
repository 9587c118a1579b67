package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ownDirectories are those in the state directory that lbctl empties and replaces, and
// nginx reads: nobody's sockets belong there.
var ownDirectories = []string{"generations", "seeds", "current"}

// makeDirectories makes both directories, and refuses places where the files of one
// would be taken for the other's.
func makeDirectories(stateDir, runDir string) error {
	for _, dir := range []string{stateDir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create the state directory, as --state-dir and --run-dir say: %w", err)
		}
	}
	state, err1 := filepath.EvalSymlinks(stateDir)
	run, err2 := filepath.EvalSymlinks(runDir)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("find the state directory, as --state-dir and --run-dir say: %w", err)
	}
	if state == run {
		return fmt.Errorf("--run-dir %s is the state directory: give it one of its own, such as %s", runDir, RunDir(stateDir, ""))
	}
	for _, name := range ownDirectories {
		if own := filepath.Join(state, name); within(run, own) {
			return fmt.Errorf("--run-dir %s is in %s, which lbctl empties: give it a place of its own, such as %s",
				runDir, own, RunDir(stateDir, ""))
		}
	}
	return nil
}

// within reports whether dir is parent, or below it.
func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+string(filepath.Separator))
}
