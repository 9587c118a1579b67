package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"lbctl/internal/disk"
)

// Counts are numbers that go on in the next lbctl exactly: after kill -9, too, each line is in them
// once.
type Counts interface {
	// AppendSnapshot appends the numbers to b, after the lines that were taken so far.
	AppendSnapshot(b []byte) []byte
	// Restore takes over a snapshot. It is called before the first line is taken, and not at all
	// if there is none. After an error the counts begin with 0.
	Restore(snapshot []byte) error
}

// snapshotVersion must change with snapshot.
const snapshotVersion = 1

// snapshot is the first line of the snapshot file. Counts' own snapshot follows it.
type snapshot struct {
	Version   int               `json:"version"`
	Saved     int64             `json:"saved"` // unix time in milliseconds
	Files     []snapshotFile    `json:"files"`
	Lines     int64             `json:"lines"`
	Malformed int64             `json:"malformed,omitempty"`
	Full      int64             `json:"full,omitempty"`
	Loss      *lossSnapshot     `json:"loss,omitempty"`
	InFlight  *inFlightSnapshot `json:"in_flight,omitempty"`
}

// snapshotFile says up to where the lines of a file are counted.
type snapshotFile struct {
	Inode uint64 `json:"inode"`
	Pos   int64  `json:"pos"`
	Skip  bool   `json:"skip,omitempty"`
}

// maxSnapshot bounds a snapshot file: more than one of 20,000 services.
const maxSnapshot = 256 << 20

func snapshotPath(dir string) string { return filepath.Join(dir, "access.counts") }

// load takes over the snapshot of the former lbctl, if there is one.
func (r *Reader) load() {
	if aside, err := disk.Clear(snapshotPath(r.opts.Dir)); err != nil || aside != "" {
		r.opts.Logger.Warn("something of the wrong type is at the path of the counts of the access log", "path", snapshotPath(r.opts.Dir), "now", aside, "error", err)
	}
	text, err := disk.ReadFile(snapshotPath(r.opts.Dir), maxSnapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	head, counts, _ := bytes.Cut(text, []byte("\n"))
	s := snapshot{}
	if err == nil {
		err = json.Unmarshal(head, &s)
	}
	if err == nil && s.Version != snapshotVersion {
		err = fmt.Errorf("it has version %d, want %d", s.Version, snapshotVersion)
	}
	if err != nil {
		r.opts.Logger.Warn("the counts of the access log begin anew, because the snapshot can't be read", "path", snapshotPath(r.opts.Dir), "error", err)
		return
	}
	r.lines.Store(s.Lines)
	r.malformed.Store(s.Malformed)
	r.full.Store(s.Full)
	if (r.opts.Requests == nil || r.opts.Elsewhere) && s.Loss != nil {
		// nginx logs only some requests here now, or did so. Without the run in its snapshot, the next
		// lbctl does not take those for lost that have no line because of that.
		s.Loss, r.dirty = &lossSnapshot{Lost: s.Loss.Lost}, true
	}
	r.losses.restore(s.Loss, time.UnixMilli(s.Saved))
	if !r.opts.Elsewhere {
		r.flying.restore(s.InFlight, time.Now())
	}
	r.former = append(r.former, s.Files...)
	if r.opts.Counts == nil {
		return
	}
	if err := r.opts.Counts.Restore(counts); err != nil {
		r.opts.Logger.Warn("the counts of requests begin anew", "error", err)
	}
}

// save writes the snapshot. Until it is there, the former one is.
func (r *Reader) save() error {
	s := snapshot{
		Version: snapshotVersion, Saved: time.Now().UnixMilli(), Lines: r.lines.Load(), Malformed: r.malformed.Load(), Full: r.full.Load(), Loss: r.losses.snapshot(),
	}
	if r.opts.InFlight {
		s.InFlight = r.flying.snapshot()
	}
	for _, l := range r.files {
		s.Files = append(s.Files, snapshotFile{l.inode(), l.pos, l.skip})
	}
	head, err := json.Marshal(s)
	if err != nil {
		return err
	}
	r.out = append(append(r.out[:0], head...), '\n')
	if r.opts.Counts != nil {
		r.out = r.opts.Counts.AppendSnapshot(r.out)
	}
	path := snapshotPath(r.opts.Dir)
	if err := writeFile(path+".new", r.out); err != nil {
		return fmt.Errorf("write the counts of the access log: %w", err)
	}
	return os.Rename(path+".new", path)
}

// writeFile writes a file in memory, where it needs no sync. It leaves no part of one.
func writeFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// commit makes what was taken permanent: only then the lines may go.
func (r *Reader) commit() error {
	moved := r.dirty
	for _, l := range r.files {
		moved = moved || l.hole < l.pos
	}
	if !moved {
		return nil
	}
	err := r.save()
	r.dirty = err != nil
	var errs []error
	for _, l := range r.files { // also without a snapshot: else nginx would drop lines
		errs = append(errs, l.free())
	}
	if errors.Is(err, syscall.ENOSPC) { // there is room now
		err = r.save()
		r.dirty = err != nil
	}
	return errors.Join(append(errs, err)...)
}
