// Package cmd_test builds the commands as users call them.
package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
)

// `go run grpc_client/main.go` compiles that one file, so a main package must not
// be spread over several.
func TestEachCommandBuildsFromItsFile(t *testing.T) {
	for _, file := range []string{
		"cmd/lbctl/main.go", "cmd/registrar/main.go", "grpc_client/main.go", "grpc_server/main.go",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command("go", "build", "-o", os.DevNull, filepath.Join("..", file)).CombinedOutput()
			assert.NoError(t, err, "go build %s: %s", file, out)
		})
	}
}
