//go:build !linux

package health

import "net"

// peerPID returns 0: only Linux tells which process connected to a unix socket.
func peerPID(net.Conn) int { return 0 }
