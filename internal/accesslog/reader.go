package accesslog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"lbctl/internal/disk"
)

const (
	// DefaultSize is the default of Options.Size: some 200,000 requests, 40 seconds at 5,000 a
	// second.
	DefaultSize = 48 << 20

	// pollInterval is how often the reader looks for new lines, as often as nginx writes them.
	pollInterval = 200 * time.Millisecond
	// renewInterval is the minimum time between two replacements of the file.
	renewInterval = time.Second
	// retireAfter is how long a replaced file must have had nothing new until the reader
	// closes it. nginx's workers, also old ones, take a new file within moments.
	retireAfter = time.Minute
	// maxFiles bounds the open files, if something replaces the file again and again.
	maxFiles = 16
	// bufferSize is the length of the longest line.
	bufferSize = 256 << 10
)

// Buffering has the arguments of nginx's directive access_log: how much a worker collects
// before it writes, and for how long.
const Buffering = "buffer=64k flush=200ms"

// nginxBuffer is the size in Buffering. With less room nginx may have dropped lines.
const nginxBuffer = 64 << 10

// Path is the path of the log in a directory.
func Path(dir string) string { return filepath.Join(dir, "access.log") }

// Options are the settings of a Reader. Dir and Reopen are required.
type Options struct {
	Dir string // for the log, on a tmpfs; made if it is missing
	// Reopen tells nginx to open its logs again. Its error is nil if nginx does not run.
	Reopen func() error
	// Size is how many bytes nginx can write that the reader has not read: then nginx drops
	// lines. Twice as much may be in memory for a moment.
	// At least 256 KiB, and a multiple of the page size; default DefaultSize.
	Size   int64
	Logger *slog.Logger // default none
}

// Stats are numbers of lines since the Reader was made.
type Stats struct {
	Lines int64 // taken
	// Malformed lines were dropped, because they are incomplete: nginx was killed or had no
	// memory while it wrote them.
	Malformed int64
	// Full is how often a file had no more room, so that nginx dropped an unknown number of
	// lines.
	Full int64
}

// Reader reads the log. Each line is taken once, also over restarts of lbctl and nginx, unless
// lbctl is killed while it takes it.
type Reader struct {
	opts    Options
	path    string
	files   []*file // the last one is at path; nginx's workers may still have the others
	renewed time.Time
	failed  string // the last problem that was logged
	buffer  []byte
	record  Record

	lines, malformed, full atomic.Int64
}

// New opens the log, or makes it. It fails if there can be no Dir, or if Dir is not on a tmpfs.
// A directory must have only one Reader.
func New(opts Options) (*Reader, error) {
	opts.Size = cmp.Or(opts.Size, DefaultSize)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of the access log: %w", err)
	}
	if err := InMemory(opts.Dir); err != nil {
		return nil, err
	}
	r := &Reader{opts: opts, path: Path(opts.Dir), buffer: make([]byte, bufferSize)}
	r.note(r.follow()) // Run tries again
	return r, nil
}

// Run calls take for each line until ctx is done, and returns ctx's error. take must not keep
// the record. Call Run once.
func (r *Reader) Run(ctx context.Context, take func(*Record)) error {
	defer r.close()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		r.note(r.poll(take))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Stats returns the numbers of lines. Any goroutine may call it.
func (r *Reader) Stats() Stats {
	return Stats{Lines: r.lines.Load(), Malformed: r.malformed.Load(), Full: r.full.Load()}
}

func (r *Reader) close() {
	for _, l := range r.files {
		l.Close()
	}
}

// note logs a problem once, until it changes.
func (r *Reader) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != r.failed && err != nil {
		r.opts.Logger.Warn("the access log can't be read", "error", err)
	}
	r.failed = text
}

// poll takes the new lines of all files. The older file comes first.
func (r *Reader) poll(take func(*Record)) error {
	var errs []error
	for _, l := range r.files {
		tooLong, err := l.read(r.buffer, func(line []byte) {
			if !r.record.parse(line) {
				r.malformed.Add(1)
				return
			}
			r.lines.Add(1)
			take(&r.record)
		})
		r.malformed.Add(int64(tooLong))
		errs = append(errs, err)
	}
	return errors.Join(append(errs, r.follow(), r.retire())...)
}

// follow opens the file that is at the path now, and replaces it if it has little room left.
// Somebody may have removed it, or nginx may have made it.
func (r *Reader) follow() error {
	if err := r.adopt(); err != nil {
		return err
	}
	full := false
	if n := len(r.files); n > 0 && r.isAtPath(r.files[n-1]) {
		size, err := r.files[n-1].size()
		if err != nil {
			return err
		}
		if start := most - r.opts.Size; size >= start && size-start <= r.opts.Size/2 {
			return nil
		}
		full = size > most-nginxBuffer
	}
	renewed, err := r.renew()
	if renewed && full {
		r.full.Add(1)
		r.opts.Logger.Warn("the access log was full, so nginx has dropped lines", "size", r.opts.Size)
	}
	return err
}

// adopt adds the file at the path to the files, if there is another one.
func (r *Reader) adopt() error {
	if n := len(r.files); n > 0 && r.isAtPath(r.files[n-1]) {
		return nil
	}
	if aside, err := disk.Clear(r.path); err != nil {
		return err
	} else if aside != "" {
		r.opts.Logger.Warn("moved aside something of the wrong type at the path of the access log", "now", aside)
	}
	l, err := openFile(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	r.files = append(r.files, l)
	return nil
}

func (r *Reader) isAtPath(l *file) bool {
	info, err := os.Lstat(r.path)
	return err == nil && os.SameFile(info, l.id)
}

// renew replaces the file at the path, and has nginx open the new one. It does nothing if it has
// just done so.
func (r *Reader) renew() (renewed bool, err error) {
	if time.Since(r.renewed) < renewInterval {
		return false, nil
	}
	r.renewed = time.Now()
	if err := os.MkdirAll(r.opts.Dir, 0o755); err != nil {
		return false, err
	}
	l, err := createFile(r.path, r.opts.Size)
	if err != nil {
		return false, fmt.Errorf("make %s: %w", r.path, err)
	}
	r.files = append(r.files, l)
	if err := r.opts.Reopen(); err != nil {
		return true, fmt.Errorf("make nginx open %s again: %w", r.path, err)
	}
	return true, nil
}

// retire closes replaced files that nginx no longer writes to.
func (r *Reader) retire() error {
	var errs []error
	for len(r.files) > 1 {
		l := r.files[0]
		if len(r.files) <= maxFiles && time.Since(l.grew) < retireAfter {
			break
		}
		rest, err := l.rest()
		if rest {
			r.malformed.Add(1)
		}
		errs = append(errs, err, l.Close())
		r.files = r.files[1:]
	}
	return errors.Join(errs...)
}

// rest reports whether the file ends with an incomplete line.
func (l *file) rest() (bool, error) {
	size, err := l.size()
	return size > l.pos, err
}
