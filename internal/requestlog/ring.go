package requestlog

import "encoding/binary"

// ring keeps the last entries, as many as fit into its memory. An entry has a sequence number,
// so that a reader that is too slow learns how many it has missed.
type ring struct {
	memory     []byte
	start, end uint64 // where the oldest entry begins and the newest one ends, in bytes ever written
	oldest     uint64 // the sequence number of the oldest entry
	next       uint64 // that of the next entry
}

// lengthSize is the size of what precedes an entry: its length.
const lengthSize = 4

func newRing(size int) *ring { return &ring{memory: make([]byte, size)} }

// longest is the length of the longest entry that the ring takes.
func (r *ring) longest() int { return min(len(r.memory)/4, readSize) - lengthSize }

// add adds an entry in place of the oldest ones. It reports false if the entry is too long.
func (r *ring) add(entry []byte) bool {
	if len(entry) > r.longest() {
		return false
	}
	size := uint64(lengthSize + len(entry))
	for r.end-r.start+size > uint64(len(r.memory)) {
		r.start += lengthSize + uint64(r.lengthAt(r.start))
		r.oldest++
	}
	var length [lengthSize]byte
	binary.LittleEndian.PutUint32(length[:], uint32(len(entry)))
	r.write(length[:])
	r.write(entry)
	r.next++
	return true
}

func (r *ring) write(b []byte) {
	at := int(r.end % uint64(len(r.memory)))
	n := copy(r.memory[at:], b)
	copy(r.memory, b[n:])
	r.end += uint64(len(b))
}

// copyAt fills b with what is at a position.
func (r *ring) copyAt(at uint64, b []byte) {
	n := copy(b, r.memory[at%uint64(len(r.memory)):])
	copy(b[n:], r.memory)
}

func (r *ring) lengthAt(at uint64) uint32 {
	var length [lengthSize]byte
	r.copyAt(at, length[:])
	return binary.LittleEndian.Uint32(length[:])
}

// cursor is where a reader is in a ring.
type cursor struct {
	at   uint64 // in bytes ever written
	next uint64 // the sequence number of the entry there
}

// newest is the cursor after all entries, and first the one before them.
func (r *ring) newest() cursor { return cursor{r.end, r.next} }
func (r *ring) first() cursor  { return cursor{r.start, r.oldest} }

// readSize is how much a reader copies at once.
const readSize = 256 << 10

// read copies entries at the cursor into b, which is of readSize, and returns what it has copied.
// It ends with a part of an entry if not all fit. missed is the number of entries that are gone
// since the cursor was there.
func (r *ring) read(c *cursor, b []byte) (n int, missed uint64) {
	if c.at < r.start {
		missed = r.oldest - c.next
		*c = r.first()
	}
	n = int(min(uint64(len(b)), r.end-c.at))
	r.copyAt(c.at, b[:n])
	return n, missed
}

// cut cuts the first entry off what read has copied. It returns false if that is not complete.
func (c *cursor) cut(b []byte) (entry, rest []byte, ok bool) {
	if len(b) < lengthSize {
		return nil, nil, false
	}
	end := lengthSize + int(binary.LittleEndian.Uint32(b))
	if len(b) < end {
		return nil, nil, false
	}
	c.at += uint64(end)
	c.next++
	return b[lengthSize:end], b[end:], true
}
