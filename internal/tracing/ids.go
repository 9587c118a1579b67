package tracing

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
)

// traceContext is what nginx says of the trace of a request: Record.Trace.
type traceContext struct {
	trace   [16]byte
	parent  [8]byte // zero: the trace begins here
	span    [8]byte // that instance and client got
	sampled bool
}

// parseContext parses "TRACE PARENT|- SPAN 0|1", all in hexadecimal digits. It returns false for
// anything else, also for ids that are zero.
func parseContext(text []byte) (c traceContext, ok bool) {
	const length = 32 + 1 + 1 + 1 + 16 + 1 + 1 // with "-" for the parent
	var parent []byte
	switch len(text) {
	case length:
		ok = text[33] == '-'
	case length + 15:
		ok, parent = true, text[33:49]
	}
	if !ok || text[32] != ' ' {
		return c, false
	}
	rest := text[len(text)-19:] // " SPAN 0"
	if parent != nil && !decode(c.parent[:], parent) || !decode(c.trace[:], text[:32]) || !decode(c.span[:], rest[1:17]) {
		return c, false
	}
	c.sampled = rest[18] == '1'
	return c, rest[0] == ' ' && rest[17] == ' ' && (c.sampled || rest[18] == '0')
}

// isSampled reports whether a Record.Trace says that the request's trace is sampled. It is for
// the many that are not.
func isSampled(text []byte) bool { return bytes.HasSuffix(text, []byte(" 1")) }

// decode decodes an id, which must not be zero.
func decode(id, text []byte) bool {
	if _, err := hex.Decode(id, text); err != nil {
		return false
	}
	for _, b := range id {
		if b != 0 {
			return true
		}
	}
	return false
}

// derived returns the nth id that follows from a span's. The same span always has the same ones,
// and they are as different from each other and from those of other spans as random ids are.
func derived(span [8]byte, n int) (id [8]byte) {
	// The generator SplitMix64, seeded with the span's id.
	x := binary.BigEndian.Uint64(span[:]) + uint64(n+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	binary.BigEndian.PutUint64(id[:], max(x, 1)) // zero is no id
	return id
}
