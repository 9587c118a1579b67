package doctor

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A socket is one on which a process listens, or, for UDP, receives.
type socket struct {
	network string // "tcp" or "udp"
	address netip.AddrPort
	inode   string
}

// socketFacts are the sockets of this machine; read once.
type socketFacts struct {
	read   bool
	all    []socket
	owners map[string][]int // by inode, as far as /proc says
}

// listening returns the sockets that keep others from the address, with the processes that own
// them.
func (s *socketFacts) listening(network string, address netip.AddrPort) (taken []socket) {
	if !s.read {
		s.read, s.owners = true, socketOwners()
		for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
			s.all = append(s.all, readSockets(name)...)
		}
	}
	for _, other := range s.all {
		if other.network == network && other.address.Port() == address.Port() && overlap(other.address.Addr(), address.Addr()) {
			taken = append(taken, other)
		}
	}
	return taken
}

// overlap reports whether two sockets can't have both addresses. nginx, lbctl's DNS and its API
// listen with IPv6 for IPv6 only.
func overlap(a, b netip.Addr) bool {
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// The states in /proc/net/tcp and /proc/net/udp, see proc(5).
const (
	tcpListen = "0A"
	udpClosed = "07"
)

// readSockets reads a file of /proc/net. What can't be read is left out: the check says less then.
func readSockets(name string) (sockets []socket) {
	text, err := os.ReadFile(filepath.Join("/proc/net", name))
	if err != nil {
		return nil
	}
	network := strings.TrimSuffix(name, "6")
	state := tcpListen
	if network == "udp" {
		state = udpClosed
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // sl local_address rem_address st queues timer retransmit uid timeout inode
		if len(fields) < 10 || fields[3] != state {
			continue
		}
		if address, ok := parseSocketAddress(fields[1]); ok {
			sockets = append(sockets, socket{network: network, address: address, inode: fields[9]})
		}
	}
	return sockets
}

// parseSocketAddress reads "0100007F:1388": words in the machine's byte order, and a port.
func parseSocketAddress(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	n, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	address, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(address.Unmap(), uint16(n)), ok
}

// socketOwners returns the processes that have each socket, by inode. Without root it has only
// those of the own user.
func socketOwners() map[string][]int {
	owners := map[string][]int{}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its pattern is valid
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if !isSocket {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
			inode = strings.TrimSuffix(inode, "]")
			owners[inode] = append(owners[inode], pid)
		}
	}
	return owners
}

// processName returns the name of a process for people: "process 123 (haproxy)".
func processName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name)))
}
