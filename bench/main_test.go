//go:build bench

package bench

import (
	"os"
	"testing"

	"lbctl/internal/lbtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	lbtest.RemoveBinary()
	os.Exit(code)
}
