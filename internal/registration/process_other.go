//go:build unix && !linux

package registration

import (
	"crypto/rand"
	"os"
	"sync"
)

// ownIdentity is made once: without /proc nothing distinguishes this process from a later one
// with the same id.
var ownIdentity = sync.OnceValue(rand.Text)

// processIdentity returns the identity of this process, empty for others.
func processIdentity(pid int) string {
	if pid != os.Getpid() {
		return ""
	}
	return ownIdentity()
}

// sameProcessNamespace returns false, since nothing is known about other processes.
func sameProcessNamespace(string) bool { return false }
