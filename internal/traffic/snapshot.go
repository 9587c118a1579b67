package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// snapshotVersion is the first byte of a snapshot. It must change with what follows it, and with
// the lists whose indexes are in it.
const snapshotVersion = 2

// ErrSnapshot says that a snapshot can't be read.
var ErrSnapshot = errors.New("the counts of the former lbctl can't be read")

// AppendSnapshot appends all counts to b, for Restore. It costs little for services without a
// request since the last snapshot.
func (c *Counters) AppendSnapshot(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b = append(b, snapshotVersion)
	b = appendTallies(b, c.unrouted)
	b = appendCounts(b, c.unroutedSessions[:])
	used := 0
	for _, s := range c.services {
		if s.duration.counts != [numBuckets + 1]uint64{} {
			used++
		}
	}
	b = binary.AppendUvarint(b, uint64(used))
	for _, s := range c.services {
		if s.duration.counts == [numBuckets + 1]uint64{} {
			continue // it has had no request
		}
		if s.changed {
			s.encoded, s.changed = s.append(s.encoded[:0]), false
		}
		b = append(b, s.encoded...)
	}
	return b
}

// Restore takes over the counts of AppendSnapshot. Call it once, before the first Take. With an
// error, which is an ErrSnapshot, all counts are 0.
func (c *Counters) Restore(snapshot []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(snapshot) == 0 || snapshot[0] != snapshotVersion {
		return fmt.Errorf("%w: it has another version than %d", ErrSnapshot, snapshotVersion)
	}
	d := &decoder{rest: snapshot[1:]}
	unrouted, unroutedSessions := d.tallies(), sessions{}
	d.counts(unroutedSessions[:])
	services := map[string]*service{}
	now := time.Now()
	for n := d.length(); n > 0; n-- {
		s := d.service(now)
		services[s.name] = s
	}
	if d.failed || len(d.rest) > 0 {
		return fmt.Errorf("%w: %d bytes do not have the form of version %d", ErrSnapshot, len(snapshot), snapshotVersion)
	}
	c.unrouted, c.unroutedSessions, c.services, c.entries = unrouted, unroutedSessions, services, nil
	c.follow(now)
	return nil
}

func (s *service) append(b []byte) []byte {
	b = appendText(b, s.name)
	b = appendText(b, s.family)
	b = appendTallies(b, s.others.tallies)
	used := 0
	for _, r := range s.routes {
		if len(r.tallies) > 0 {
			used++
		}
	}
	b = binary.AppendUvarint(b, uint64(used))
	for name, r := range s.routes {
		if len(r.tallies) > 0 {
			b = appendTallies(appendText(b, name), r.tallies)
		}
	}
	b = appendCounts(b, s.sessions[:])
	b = appendDurations(b, &s.duration)
	b = binary.AppendUvarint(b, s.requestBytes)
	b = binary.AppendUvarint(b, s.responseBytes)
	b = appendCounts(b, s.refused[:])
	b = appendCounts(b, s.retries[:])
	b = binary.AppendUvarint(b, uint64(len(s.versions)))
	names := slices.Sorted(maps.Keys(s.versions))
	for _, name := range names {
		v := s.versions[name]
		b = appendDurations(appendCounts(appendText(b, name), v.results[:]), &v.duration)
	}
	used = 0
	for _, i := range s.instances {
		if i.results != (results{}) {
			used++
		}
	}
	b = binary.AppendUvarint(b, uint64(used))
	for _, i := range s.instances {
		if i.results == (results{}) {
			continue
		}
		b = appendText(appendText(appendText(b, i.endpoint), i.node), i.id)
		at, _ := slices.BinarySearch(names, i.version)
		b = appendCounts(binary.AppendUvarint(b, uint64(at)), i.results[:])
		b = binary.AppendUvarint(b, uint64(i.last.at))
		b = binary.AppendUvarint(b, uint64(i.last.result))
		b = binary.AppendUvarint(b, uint64(i.last.status))
	}
	return b
}

func (d *decoder) service(now time.Time) *service {
	s := newService(d.text())
	s.gone, s.family = now, d.text()
	s.others.tallies = d.tallies()
	for n := d.length(); n > 0; n-- {
		name := d.text()
		s.routes[name] = &route{gone: now, tallies: d.tallies()}
	}
	d.counts(s.sessions[:])
	d.durations(&s.duration)
	s.requestBytes, s.responseBytes = d.number(), d.number()
	d.counts(s.refused[:])
	d.counts(s.retries[:])
	var names []string
	for n := d.length(); n > 0; n-- {
		name, v := d.text(), &version{}
		d.counts(v.results[:])
		d.durations(&v.duration)
		s.versions[name], names = v, append(names, name)
	}
	for n := d.length(); n > 0; n-- {
		endpoint, node, id := d.text(), d.text(), d.text()
		at := d.number()
		if at >= uint64(len(names)) {
			d.failed = true
			return s
		}
		i := s.instance(instanceKey{endpoint, names[at]})
		i.node, i.id, i.gone = node, id, now
		d.counts(i.results[:])
		i.last = failure{at: int64(d.number()), result: int8(d.below(uint64(numResults))), status: int16(d.below(1000))}
	}
	return s
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendTallies(b []byte, tallies []tally) []byte {
	b = binary.AppendUvarint(b, uint64(len(tallies)))
	for _, t := range tallies {
		b = binary.AppendUvarint(append(b, t.class, t.grpc), t.count)
	}
	return b
}

func appendDurations(b []byte, h *durations) []byte {
	return binary.AppendUvarint(appendCounts(b, h.counts[:]), h.sum)
}

// appendCounts appends counts of which most are 0: how many are not, and each with its index.
func appendCounts(b []byte, counts []uint64) []byte {
	used := byte(0)
	for _, count := range counts {
		if count > 0 {
			used++
		}
	}
	b = append(b, used)
	for n, count := range counts {
		if count > 0 {
			b = binary.AppendUvarint(append(b, byte(n)), count)
		}
	}
	return b
}

// decoder reads what the functions above have written. After a failure it returns zero values.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) number() uint64 {
	n, length := binary.Uvarint(d.rest)
	if length <= 0 {
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[length:]
	return n
}

// below reads a number below a limit.
func (d *decoder) below(limit uint64) uint64 {
	n := d.number()
	if n >= limit {
		d.failed = true
		return 0
	}
	return n
}

// length reads the length of a list, each of whose elements has at least a byte.
func (d *decoder) length() uint64 {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.failed = true
		return 0
	}
	return n
}

func (d *decoder) text() string {
	n := d.length()
	text := string(d.rest[:n])
	d.rest = d.rest[n:]
	return text
}

func (d *decoder) tallies() []tally {
	n := d.length()
	tallies := make([]tally, 0, min(n, uint64(len(codeNames)*numStatuses)))
	for ; n > 0; n-- {
		key := tallyKey{uint8(d.below(uint64(len(codeNames)))), uint8(d.below(numStatuses))}
		tallies = add(tallies, key, d.number())
	}
	return tallies
}

func (d *decoder) durations(h *durations) {
	d.counts(h.counts[:])
	h.sum = d.number()
}

func (d *decoder) counts(counts []uint64) {
	for n := d.length(); n > 0; n-- {
		at := d.below(uint64(len(counts)))
		counts[at] = d.number()
	}
}
