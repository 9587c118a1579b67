//go:build unix && !linux

package registration

import (
	"crypto/rand"
	"os"
	"sync"
)

// ownIdentity is made once: without /proc nothing tells this process from a later
// one with the same id.
var ownIdentity = sync.OnceValue(rand.Text)

// processIdentity is the identity of this process, empty for others.
func processIdentity(pid int) string {
	if pid != os.Getpid() {
		return ""
	}
	return ownIdentity()
}

// sameProcessNamespace is false: of other processes nothing is known.
func sameProcessNamespace(string) bool { return false }
