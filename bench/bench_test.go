//go:build bench

// Package bench measures whole load balancers, ours beside others, and prints
// what it found as tables of figures and ratios from one run: the machines this
// runs on are shared, and single times say little. Nothing in it fails for being
// slow.
package bench

import (
	"os"
	"testing"

	"lbctl/internal/lbtest"
	"lbctl/internal/nginxtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	lbtest.RemoveBinary()
	os.Exit(code)
}

// nginx is the newest nginx there is.
func nginx(t *testing.T) nginxtest.Binary {
	t.Helper()
	all := nginxtest.Binaries(t)
	return all[len(all)-1]
}

const service = "hello_server"
