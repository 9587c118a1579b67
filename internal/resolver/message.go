package resolver

import (
	"encoding/binary"
	"fmt"

	"github.com/miekg/dns"
)

const (
	// MaxSize is the maximum number of bytes of a DNS message, over TCP.
	MaxSize = 65535
	// udpSize is the longest answer over UDP that nginx accepts.
	udpSize = 4096

	headerSize = 12
	// questionSize is the maximum size of a question: the longest possible name (RFC 1035,
	// section 2.3.4), type and class.
	questionSize = 255 + 4
	// recordSize is the size of a record without its target's name: the owner's name,
	// which is a pointer to the question's, type, class, TTL and length, then priority,
	// weight and port.
	recordSize = 2 + 10 + 6

	pointer = 0xc000 // to an earlier name in the message
)

// Size returns the maximum number of bytes of an answer with these servers.
func Size(targets []Target) int {
	size := headerSize + questionSize + len(targetZone) + 1
	for _, t := range targets {
		size += recordSize + 1 + len(targetLabel(t.Addr)) + 2
	}
	return size
}

// Fits reports whether an answer can carry all these servers: some 1,870 with an
// IPv4 address, or 1,100 with an IPv6 address.
func Fits(targets []Target) bool { return Size(targets) <= MaxSize }

// pack makes the answer over UDP, without the question's id. If it is too long, it is an
// answer without servers that is marked as truncated (RFC 1035, section 4.2.1), and whole
// is false.
func pack(query string, targets []Target) (answer []byte, whole bool) {
	answer = packAll(query, targets)
	if len(answer) <= udpSize {
		return answer, true
	}
	const truncated = 0x02
	answer = packHeader(query, 0)
	answer[2] |= truncated
	return answer, false
}

// packAll makes the answer over TCP. If not all servers fit, it has the first ones. It
// compresses the names of targets, which nginx understands and dns.SRV would not do.
func packAll(query string, targets []Target) []byte {
	if len(targets) == 0 {
		targets = []Target{sentinel}
	}
	for !Fits(targets) {
		targets = targets[:len(targets)*9/10]
	}
	m := packHeader(query, len(targets))
	zoneAt := 0
	for _, t := range targets {
		m = binary.BigEndian.AppendUint16(m, pointer|headerSize)
		m = binary.BigEndian.AppendUint16(m, dns.TypeSRV)
		m = binary.BigEndian.AppendUint16(m, dns.ClassINET)
		m = binary.BigEndian.AppendUint32(m, 0) // TTL 0: nginx asks again after a second, its minimum
		lengthAt := len(m)
		m = binary.BigEndian.AppendUint16(m, 0)
		m = binary.BigEndian.AppendUint16(m, 0) // priority: nginx takes any other as backup
		m = binary.BigEndian.AppendUint16(m, t.Weight)
		m = binary.BigEndian.AppendUint16(m, t.Addr.Port())
		m = appendLabel(m, targetLabel(t.Addr))
		if zoneAt == 0 {
			zoneAt = len(m)
			m = appendName(m, targetZone[1:]+".")
		} else {
			m = binary.BigEndian.AppendUint16(m, uint16(pointer|zoneAt))
		}
		binary.BigEndian.PutUint16(m[lengthAt:], uint16(len(m)-lengthAt-2))
	}
	return m
}

// packHeader makes the beginning of an answer with n SRV records, up to the first record.
func packHeader(query string, n int) []byte {
	const response, authoritative = 0x8000, 0x0400
	m := make([]byte, 0, headerSize+questionSize)
	for _, field := range []uint16{0, response | authoritative, 1, uint16(n), 0, 0} {
		m = binary.BigEndian.AppendUint16(m, field)
	}
	m = appendName(m, query)
	m = binary.BigEndian.AppendUint16(m, dns.TypeSRV)
	return binary.BigEndian.AppendUint16(m, dns.ClassINET)
}

func appendLabel(m []byte, label string) []byte {
	return append(append(m, byte(len(label))), label...)
}

// appendName appends a full name. It panics if the name is invalid, which ours never are.
func appendName(m []byte, name string) []byte {
	var b [256]byte
	n, err := dns.PackDomainName(name, b[:], 0, nil, false)
	if err != nil {
		panic(fmt.Sprintf("pack the DNS name %q: %v", name, err))
	}
	return append(m, b[:n]...)
}
