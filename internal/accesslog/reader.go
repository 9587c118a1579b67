package accesslog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"lbctl/internal/disk"
)

const (
	// MaxDefaultSize is the default of Options.Size on a tmpfs with enough room: with lines of 300
	// bytes some 440,000 requests. At least three quarters of that is free at any time while lbctl
	// runs, so lbctl can be away for a minute at 5,000 requests a second.
	MaxDefaultSize = 128 << 20
	// MinSize is the smallest Options.Size.
	MinSize = 256 << 10

	// pollInterval is how often the reader looks for new lines, as often as nginx writes them.
	pollInterval = 200 * time.Millisecond
	// renewInterval is the minimum time between two replacements of the file.
	renewInterval = time.Second
	// retireAfter is how long a replaced file must have had nothing new until the reader
	// closes it. nginx's workers, also old ones, take a new file within moments.
	retireAfter = time.Minute
	// tellInterval is the minimum time between two lines about lost requests.
	tellInterval = time.Minute
	// maxFiles bounds the open files, if something replaces the file again and again.
	maxFiles = 16
	// bufferSize is the length of the longest line.
	bufferSize = 256 << 10
	// batchSize is about how much is read of a file before it is counted for good and its memory
	// becomes free.
	batchSize = 1 << 20
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
	// Size is how many bytes nginx can write into a file: then it drops lines. The reader replaces
	// the file when a quarter of that is used, so three quarters are free at any time, and a quarter
	// more may be in memory for a moment. At least MinSize; rounded down to whole pages; default
	// DefaultSize.
	Size int64
	// Counts go on in the next lbctl; default none.
	Counts Counts
	// Requests asks nginx for its requests, for Stats.Lost; default never. nginx must log all of
	// them.
	Requests func(context.Context) (Requests, error)
	// InFlight says that nginx writes a line of the format StartFormat also when a request begins,
	// for Reader.InFlight. Started says when one of its workers started, and returns fs.ErrNotExist if
	// there is no such process; default: they all live.
	InFlight bool
	Started  func(worker int) (time.Time, error)
	// Elsewhere says that nginx may have logged to another directory, or not at all, after the last
	// snapshot in Dir: those requests are not lost.
	Elsewhere bool
	Logger    *slog.Logger // default none
}

// Stats are numbers of lines. The totals go on over restarts of lbctl.
type Stats struct {
	Lines int64 // taken
	// Malformed lines were dropped, because they are incomplete: nginx was killed or had no
	// memory while it wrote them.
	Malformed int64
	// Full is how often a file had no more room, so that nginx dropped lines.
	Full int64
	// Lost is how many requests ended without a line that was taken, as far as nginx can tell: those
	// since it was last asked, 0.1 s ago, are not known if it is killed. It is some seconds late.
	Lost int64
	// Lag is how long before it was taken the last line's request had ended. nginx and the reader
	// keep a line for 400 ms at most.
	Lag time.Duration
	// Unread is how many bytes were waiting at the end of the last reading, and Size how many nginx
	// can write into a file.
	Unread, Size int64
}

// Reader reads the log. Each line is taken at least once, also over restarts of lbctl and nginx, and
// is in Options.Counts once.
type Reader struct {
	opts     Options
	path     string
	files    []*file        // the last one is at path; nginx's workers may still have the others
	former   []snapshotFile // of the former lbctl, and not found yet
	replaced int            // the number in the name of the last file that was replaced
	renewed  time.Time
	failed   string // the last problem that was logged
	buffer   []byte
	out      []byte // the last snapshot
	dirty    bool   // it could not be written
	record   Record
	losses   losses
	flying   inFlight
	told     int64     // how many lost requests the log has told of
	toldAt   time.Time // when it last did

	lines, malformed, full, lost, lag, unread atomic.Int64
}

// DefaultSize is the default of Options.Size in a directory: MaxDefaultSize, but at most three
// quarters of its tmpfs.
func DefaultSize(dir string) int64 {
	total := capacity(dir)
	if total <= 0 {
		return MaxDefaultSize
	}
	return max(MinSize, min(MaxDefaultSize, total/4*3))
}

// New opens the log, or makes it. It fails if there can be no Dir, or if Dir is not on a tmpfs.
// A directory must have only one Reader.
func New(opts Options) (*Reader, error) {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of the access log: %w", err)
	}
	if err := InMemory(opts.Dir); err != nil {
		return nil, err
	}
	if opts.Size == 0 {
		opts.Size = DefaultSize(opts.Dir)
	}
	opts.Size = max(MinSize, opts.Size&^int64(os.Getpagesize()-1))
	r := &Reader{opts: opts, path: Path(opts.Dir), buffer: make([]byte, bufferSize)}
	r.losses = losses{since: time.Now(), interval: sampleInterval, idle: idleInterval, settle: settleTime}
	r.flying.reset(time.Now())
	r.load()
	r.lost.Store(r.losses.lost)
	r.told = r.losses.lost
	r.note(errors.Join(r.openFormer(), r.follow())) // Run tries again
	if r.dirty {
		r.dirty = r.save() != nil // now, because the caller will not say Elsewhere again
	}
	return r, nil
}

// Run calls take for each line until ctx is done, and returns ctx's error. take must not keep
// the record. Call Run once.
func (r *Reader) Run(ctx context.Context, take func(*Record)) error {
	defer r.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for polled := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		r.ask(ctx)
		if time.Since(polled) >= pollInterval-sampleInterval/2 {
			polled = time.Now()
			r.note(r.poll(ctx, take))
		}
		if r.losses.busy {
			timer.Reset(sampleInterval)
		} else {
			timer.Reset(pollInterval) // each waking costs an idle lbctl
		}
	}
}

// Stats returns the numbers of lines. Any goroutine may call it.
func (r *Reader) Stats() Stats {
	return Stats{
		Lines: r.lines.Load(), Malformed: r.malformed.Load(), Full: r.full.Load(), Lost: r.lost.Load(),
		Lag: time.Duration(r.lag.Load()), Unread: r.unread.Load(), Size: r.opts.Size,
	}
}

// InFlight returns how many requests have begun and not ended, by service; services without one may
// be missing. nil: they are not counted. If nginx had no room for lines, those do not count that began
// before. Any goroutine may call it.
func (r *Reader) InFlight() map[string]int64 {
	if !r.opts.InFlight {
		return nil
	}
	return r.flying.totals()
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

// tellLost notes how many requests have been lost, and tells of them: not before the next lbctl would
// know of them too, so that the number never goes down.
func (r *Reader) tellLost(now time.Time) (err error) {
	lost := r.losses.lost
	if lost != r.lost.Load() {
		err = r.save()
		r.lost.Store(lost)
	}
	if lost == r.told || now.Sub(r.toldAt) < tellInterval {
		return err
	}
	r.opts.Logger.Warn("nginx could not log some requests, so metrics and logs lack them", "requests", lost-r.told)
	r.told, r.toldAt = lost, now
	return err
}

// noteFlying looks for reasons why lines of requests that go on may be missing.
func (r *Reader) noteFlying() {
	if !r.opts.InFlight {
		return
	}
	now := time.Now()
	r.flying.note(r.malformed.Load()+r.full.Load(), now)
	if free := room(r.opts.Dir); free >= 0 && free < enoughRoom {
		r.flying.forget(now)
	}
}

// poll takes the new lines of all files, until there are no more or ctx is done.
func (r *Reader) poll(ctx context.Context, take func(*Record)) error {
	for {
		begin := time.Now()
		more, err := r.batch(take)
		err = errors.Join(err, r.commit(), r.follow(), r.retire())
		r.noteFlying()
		if err != nil {
			return err
		}
		if !more {
			if r.opts.InFlight && r.opts.Started != nil {
				r.flying.look(begin, r.opts.Started)
			}
			r.losses.judge(begin, begin.UnixMilli())
			return r.tellLost(begin)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// batch takes some of the new lines of all files. The older file comes first. It reports whether
// there are more.
func (r *Reader) batch(take func(*Record)) (more bool, err error) {
	now := time.Now()
	line := func(line []byte) {
		if bytes.HasPrefix(line, []byte(startPrefix)) {
			if !r.flying.begin(line) {
				r.malformed.Add(1)
			}
			return
		}
		if !r.record.parse(line) {
			r.malformed.Add(1)
			return
		}
		r.lines.Add(1)
		if !r.record.TCP { // nginx counts only requests, and logs only their beginning
			r.losses.take(r.record.Time.UnixMilli())
			r.losses.busy = r.losses.busy || !r.record.Internal()
			r.flying.end(&r.record)
		}
		take(&r.record)
	}
	var errs []error
	unread := int64(0)
	lines := r.lines.Load()
	// A worker writes to a newer file when it has written its last line to the older one. So the reader
	// takes no line from a newer file before those that the older one had when it was written.
	for _, l := range r.files {
		errs = append(errs, l.look())
	}
	for _, l := range r.files {
		if unread == 0 {
			tooLong, err := l.read(r.buffer, batchSize, line)
			r.malformed.Add(int64(tooLong))
			errs = append(errs, err)
		}
		unread += l.unread
	}
	r.unread.Store(unread)
	if r.lines.Load() > lines {
		r.lag.Store(int64(max(0, now.Sub(r.record.Time))))
	}
	return unread > 0, errors.Join(errs...)
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
		if start := most - r.opts.Size; size >= start && size-start <= r.opts.Size/4 {
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
	r.add(l)
	return nil
}

// add adds a file that was not made by this reader.
func (r *Reader) add(l *file) {
	for n, f := range r.former {
		if f.Inode == l.inode() {
			l.resume(f.Pos, f.Skip)
			r.former = slices.Delete(r.former, n, n+1)
			break
		}
	}
	r.files = append(r.files, l)
}

// openFormer opens the files that the former lbctl has replaced: nginx may still have them.
func (r *Reader) openFormer() error {
	paths, err := filepath.Glob(r.path + ".*")
	if err != nil {
		return err
	}
	numbers := map[string]int{}
	for _, path := range paths {
		if n, err := strconv.Atoi(strings.TrimPrefix(path, r.path+".")); err == nil && n > 0 {
			numbers[path] = n
			r.replaced = max(r.replaced, n)
		}
	}
	paths = slices.Collect(maps.Keys(numbers))
	slices.SortFunc(paths, func(x, y string) int { return numbers[x] - numbers[y] })
	var errs []error
	for _, path := range paths {
		l, err := openFile(path)
		switch {
		case err != nil:
			errs = append(errs, err)
		case r.isAtPath(l): // the former lbctl was killed before it had made another one
			errs = append(errs, l.Close(), os.Remove(path))
		default:
			r.add(l)
		}
	}
	return errors.Join(errs...)
}

// keep gives the file at the path another name, so that the next lbctl finds it: nginx's workers
// write to it until they have opened the new one.
func (r *Reader) keep() error {
	n := len(r.files)
	if n == 0 || r.files[n-1].path != r.path || !r.isAtPath(r.files[n-1]) {
		return nil
	}
	aside := r.path + "." + strconv.Itoa(r.replaced+1)
	if err := os.Link(r.path, aside); err != nil {
		return err
	}
	r.replaced++
	r.files[n-1].path = aside
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
	if err := r.keep(); err != nil {
		return false, fmt.Errorf("make %s: %w", r.path, err)
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
		if l.path != r.path {
			if failed := os.Remove(l.path); !errors.Is(failed, fs.ErrNotExist) {
				err = errors.Join(err, failed)
			}
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
