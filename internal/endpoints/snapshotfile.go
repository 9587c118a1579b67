package endpoints

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"lbctl/internal/disk"
)

// ErrSnapshot is the error of Open for a snapshot that is unusable, fully or in part. Open
// then also returns a working table with the usable part.
var ErrSnapshot = errors.New("endpoint snapshot is unusable")

// savePause is the minimum time between two writes of the snapshot, since with thousands
// of instances a write takes a while. After an error it is the time until the next try.
const savePause = 10 * time.Second

// maxSnapshot bounds a snapshot that is read, in bytes. 10,000 instances take some 3 MB.
const maxSnapshot = 1 << 30

// snapshotFile is where a table's snapshot is.
type snapshotFile struct {
	path string // "": nowhere
	// interval is how old the file may get while nothing changes, so that the age of its
	// content is known after a restart; 0: any age.
	interval time.Duration

	mu      sync.Mutex
	sum     [sha256.Size]byte // of the file's content, except for its dates
	written time.Time
}

// Open makes a table from the snapshot at path. Without a file there the table is empty.
// With an empty path it keeps no snapshot.
//
// Open moves a snapshot that can't be parsed, or that is no regular file, aside to
// path.broken or a similar name. It then returns an empty table together with an error that
// is ErrSnapshot. If only some services of the snapshot are invalid, it returns ErrSnapshot
// and a table with the others. With any other error there is no table.
func Open(path string, opts Options) (*Table, error) {
	t := newTable(path, opts)
	if path == "" {
		return t, nil
	}
	b, err := disk.ReadFile(path, maxSnapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil && !errors.Is(err, disk.ErrUnfit) {
		return nil, fmt.Errorf("read endpoint snapshot: %w; make it readable, or remove it to start without it", err)
	}
	var s snapshot
	usable := false
	if err == nil {
		s, usable, err = parseSnapshot(b)
	}
	if !usable {
		broken, moveErr := disk.MoveAside(path)
		if moveErr != nil {
			return nil, fmt.Errorf("%w: %s: %w; %w; remove it to start without it", ErrSnapshot, path, err, moveErr)
		}
		return t, fmt.Errorf("%w: %s: %w; starting without it, it is now %s", ErrSnapshot, path, err, broken)
	}
	t.restore(time.Now(), s)
	if err != nil {
		return t, fmt.Errorf("%w in part: %s: %w; starting without these services", ErrSnapshot, path, err)
	}
	return t, nil
}

// Run writes the snapshot after observations until ctx is done. Then it writes it once
// more and returns ctx's error. It calls saved after each attempt, with its error or nil.
func (t *Table) Run(ctx context.Context, saved func(error)) error {
	var again <-chan time.Time
	if t.file.interval > 0 {
		ticker := time.NewTicker(t.file.interval)
		defer ticker.Stop()
		again = ticker.C
	}
	// The first of several changes is written at once.
	var pause, retry <-chan time.Time
	for {
		unsaved := t.unsaved
		if pause != nil {
			unsaved = nil
		}
		select {
		case <-ctx.Done():
			saved(t.Save())
			return ctx.Err()
		case <-pause:
			pause = nil
			continue
		case <-unsaved:
			pause = time.After(savePause)
		case <-again:
		case <-retry:
		}
		err := t.Save()
		saved(err)
		retry = nil
		if err != nil {
			retry = time.After(savePause)
		}
	}
}

// Save writes the snapshot if its content has changed or the file is older than interval.
// It is atomic: after a crash the file is the old one or the new one.
func (t *Table) Save() error {
	if t.file.path == "" {
		return nil
	}
	if err := t.file.write(t.snapshot); err != nil {
		return fmt.Errorf("save endpoint snapshot: %w", err)
	}
	return nil
}

func (f *snapshotFile) write(take func() snapshot) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := take()
	dates, err := json.Marshal(s.snapshotDates)
	if err != nil {
		return err
	}
	s.snapshotDates = snapshotDates{}
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	recent := f.interval <= 0 || time.Since(f.written) < f.interval
	if sum == f.sum && recent {
		return nil
	}
	// Both are JSON objects, and the second is never empty. Joining them avoids encoding
	// the long one, with its thousands of instances, twice.
	dates = dates[:len(dates)-1]
	if len(dates) > 1 {
		dates = append(dates, ',')
	}
	if err := disk.Replace(f.path, dates, content[1:], []byte("\n")); err != nil {
		return err
	}
	f.sum, f.written = sum, time.Now()
	return nil
}
