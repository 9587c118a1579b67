package nginx

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"lbctl/internal/disk"
)

// A Resolver is the DNS server that nginx asks for the servers of its upstreams.
type Resolver interface {
	// Known reports whether the running nginx has servers of the upstream. nginx keeps
	// them over a reload.
	Known(upstream string) bool
	// Reloading is called before a reload. The function it returns is called when new
	// workers serve.
	Reloading() (reloaded func())
}

// bootstrap manages the bootstrap servers of all upstreams. An nginx that asks for the
// servers of its upstreams has none until the first answer, so each upstream includes a
// file with the servers that lbctl knows. nginx reads these files when it starts. At a
// reload it must read only those of new upstreams: it keeps the servers that it has read
// until the next reload, beside those it asks for. So hide hides the other files.
//
//	<state>/seeds/start/1f/grpc-hello.conf   for the start of nginx
//	<state>/seeds/reload/                    copies of the files for a reload
//	<state>/seeds/now -> start               the directory that nginx reads
//
// The directory is called seeds because generations of earlier releases include files
// from it.
//
// The files are in 64 directories because there may be thousands: nginx reads a whole
// directory to expand a pattern, and one directory per file would make the first start
// slow.
type bootstrap struct {
	dir    string
	logger *slog.Logger // gets a line for each path that is moved aside

	mu      sync.Mutex
	written map[string]string // the content of start/, by upstream; nil: unknown
	// shown has the servers that nginx could read at a reload, by set: the number that
	// nginx answers after that reload.
	shown map[string]map[string]string
}

// markerFile makes nginx answer which set of bootstrap servers it has read.
// generation.conf includes it. No upstream has this name.
const markerFile = "_seeded"

// startSet is the set that nginx answers after a start. After a reload it answers a
// number.
const startSet = "start"

func markerConf(set string) string {
	return fmt.Sprintf("location = /seeded { return 200 \"%s\\n\"; }\n", set)
}

func (b *bootstrap) path(set string) string { return filepath.Join(b.dir, set) }

const (
	shards          = 64
	bootstrapSuffix = ".conf"
)

// shard is the directory of an upstream's file.
func shard(upstream string) string {
	h := fnv.New32a()
	h.Write([]byte(upstream))
	return fmt.Sprintf("%02x", h.Sum32()%shards)
}

func bootstrapFile(dir, upstream string) string {
	return filepath.Join(dir, shard(upstream), upstream+bootstrapSuffix)
}

// CurrentDir is the link to the generation that nginx serves.
func CurrentDir(stateDir string) string { return store{dir: stateDir}.link() }

// BootstrapDir is the directory from which nginx reads bootstrap servers, with the
// patterns of BootstrapPattern.
func BootstrapDir(stateDir string) string { return filepath.Join(stateDir, "seeds", "now") }

// BootstrapPattern is the pattern with which an upstream includes its bootstrap servers
// from a BootstrapDir. It matches one file. It is a pattern because nginx accepts a
// pattern without matches, but no missing file.
func BootstrapPattern(dir, upstream string) string {
	return strings.TrimSuffix(bootstrapFile(dir, upstream), "f") + "[f]"
}

// WriteBootstrapServers sets the servers with which each upstream starts: lines of
// nginx's configuration, by upstream. It writes only files that differ. If it can't
// write a file, it goes on with the others, and failed has the error by upstream; nginx
// then starts with the older servers of that upstream. The error is ErrStore if nothing
// could be written.
func (i *Instance) WriteBootstrapServers(servers map[string]string) (failed map[string]error, err error) {
	failed, err = i.bootstrap.write(servers)
	if err != nil {
		return nil, fmt.Errorf("write bootstrap servers: %w: %w", ErrStore, err)
	}
	for upstream, err := range failed {
		failed[upstream] = fmt.Errorf("write bootstrap servers: %w: %w", ErrStore, err)
	}
	return failed, nil
}

func (b *bootstrap) write(servers map[string]string) (failed map[string]error, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	start := b.path(startSet)
	if b.written == nil {
		if err := b.load(); err != nil {
			return nil, err
		}
	}
	failed = map[string]error{}
	for upstream := range b.written {
		if _, ok := servers[upstream]; ok {
			continue
		}
		if err := os.RemoveAll(bootstrapFile(start, upstream)); err != nil {
			failed[upstream] = err
			continue
		}
		delete(b.written, upstream)
	}
	for upstream, lines := range servers {
		if old, ok := b.written[upstream]; ok && old == lines {
			continue
		}
		if err := b.replace(bootstrapFile(start, upstream), lines); err != nil {
			failed[upstream] = err
			continue
		}
		b.written[upstream] = lines
	}
	return failed, nil
}

// load reads the files of an earlier process, and links them for the start of nginx.
func (b *bootstrap) load() error {
	for _, dir := range []string{b.dir, b.path(startSet), b.path("reload")} {
		if err := logMoved(b.logger)(disk.Directory(dir)); err != nil {
			return err
		}
	}
	if err := b.show(startSet); err != nil {
		return err
	}
	start := b.path(startSet)
	if err := b.replace(bootstrapFile(start, markerFile), markerConf(startSet)); err != nil {
		return err
	}
	written, err := readBootstrapFiles(start)
	if err != nil {
		return err
	}
	b.written = written
	return nil
}

// readBootstrapFiles reads a directory of bootstrap servers, by upstream. It removes
// incomplete files, which a crash left behind.
func readBootstrapFiles(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, file := range files {
		upstream := strings.TrimSuffix(filepath.Base(file), bootstrapSuffix)
		if upstream == markerFile {
			continue
		}
		lines, err := disk.ReadFile(file, maxFile)
		if err != nil || file != bootstrapFile(dir, upstream) {
			_ = os.RemoveAll(file)
			continue
		}
		found[upstream] = string(lines)
	}
	return found, nil
}

// restore links all files for the start of nginx, in case an earlier process crashed
// during a reload.
func (b *bootstrap) restore() error {
	if _, err := os.Lstat(b.path("now")); err != nil {
		return nil // there are no files yet
	}
	return errors.Join(b.removeUnfit(), b.show(startSet))
}

// removeUnfit removes everything that is not a regular file: nginx would not start, or
// would wait for ever for data from a named pipe.
func (b *bootstrap) removeUnfit() error {
	shards, err := filepath.Glob(filepath.Join(b.path(startSet), "*"))
	if err != nil {
		return err
	}
	for _, shard := range shards {
		entries, _ := os.ReadDir(shard) // nginx ignores a shard that is not a directory
		for _, entry := range entries {
			if !entry.Type().IsRegular() {
				err = errors.Join(err, os.RemoveAll(filepath.Join(shard, entry.Name())))
			}
		}
	}
	return err
}

// hide makes the next reload read only the bootstrap servers of upstreams that are not
// known, because nginx has no servers of them.
func (b *bootstrap) hide(known func(upstream string) bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		return nil // no file has been written yet
	}
	reload := b.path("reload")
	if err := os.RemoveAll(reload); err != nil {
		return err
	}
	if err := os.Mkdir(reload, 0o755); err != nil {
		return err
	}
	shown := maps.Clone(b.written)
	maps.DeleteFunc(shown, func(upstream, _ string) bool { return known(upstream) })
	for upstream, lines := range shown {
		if err := b.replace(bootstrapFile(reload, upstream), lines); err != nil {
			return err
		}
	}
	if len(shown) > 0 {
		set := strconv.FormatInt(time.Now().UnixNano(), 10)
		if err := b.replace(bootstrapFile(reload, markerFile), markerConf(set)); err != nil {
			return err
		}
		if b.shown == nil {
			b.shown = map[string]map[string]string{}
		}
		b.shown[set] = shown
	}
	return b.show("reload")
}

// unhide links all files again, for the start of nginx.
func (b *bootstrap) unhide() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		return nil
	}
	return b.show(startSet)
}

// show links one of the directories as the one that nginx reads, in one step.
func (b *bootstrap) show(set string) error {
	link, next := b.path("now"), b.path(".now")
	if target, err := os.Readlink(link); err == nil && target == set {
		return nil
	}
	if err := os.RemoveAll(next); err != nil { // may be of any type
		return err
	}
	if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		if err := logMoved(b.logger)(disk.MoveAside(link)); err != nil { // a rename can't replace a directory
			return err
		}
	}
	if err := os.Symlink(set, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

// serversIn returns the servers of a set, by upstream. The servers are "" where they
// are unknown: the files of startSet may have changed since nginx read them.
func (b *bootstrap) serversIn(set string) (map[string]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if shown, ok := b.shown[set]; ok {
		// nginx will not answer an earlier set again; it may answer a later one soon.
		maps.DeleteFunc(b.shown, func(other string, _ map[string]string) bool { return other < set })
		return maps.Clone(shown), nil
	}
	reload := b.path("reload")
	if conf, err := disk.ReadFile(bootstrapFile(reload, markerFile), maxFile); err == nil && string(conf) == markerConf(set) {
		return readBootstrapFiles(reload) // an earlier process made this set
	}
	all := b.written
	if all == nil {
		var err error
		if all, err = readBootstrapFiles(b.path(startSet)); err != nil {
			return nil, err
		}
	}
	unknown := make(map[string]string, len(all))
	for upstream := range all {
		unknown[upstream] = ""
	}
	return unknown, nil
}

// replace writes a small file in one step, and makes its directory. It does not sync
// the file, because lbctl writes it again at the next start.
func (b *bootstrap) replace(path, content string) error {
	if err := logMoved(b.logger)(disk.Directory(filepath.Dir(path))); err != nil {
		return err
	}
	if err := logMoved(b.logger)(disk.Clear(path)); err != nil {
		return err
	}
	next := path + ".new"
	if info, err := os.Lstat(next); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		if err := os.Remove(next); err != nil { // writing to a named pipe would block
			return err
		}
	}
	if err := os.WriteFile(next, []byte(content), 0o644); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	return os.Rename(next, path)
}

// BootstrapServers asks nginx which bootstrap servers it read when it started or last
// reloaded: lines of its configuration, by upstream. The lines are empty if they are
// unknown, because lbctl has changed the files since. nginx keeps these servers until
// Reload. The errors are those of Serving.
func (i *Instance) BootstrapServers(ctx context.Context) (map[string]string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lbctl/seeded", nil)
	if err != nil {
		return nil, err
	}
	response, err := i.socket.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), rootCause(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64))
	if err != nil {
		return nil, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil
	}
	return i.bootstrap.serversIn(strings.TrimSpace(string(body)))
}

// Reload makes nginx read the current generation again, without the bootstrap servers
// that it no longer needs. The error is ErrDegraded if nginx does not serve it
// afterwards, or ErrNotRunning.
func (i *Instance) Reload(ctx context.Context) error {
	if err := i.acquire(ctx); err != nil {
		return fmt.Errorf("reload nginx: %w", err)
	}
	defer i.release()
	n, err := i.store.current()
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("reload nginx: %w: there is no generation yet", ErrNotRunning)
	}
	failed := i.reload(ctx, n, tailOf(i.logPath()))
	switch {
	case failed == nil:
		return nil
	case !failed.running:
		return notRunning(n, failed)
	default:
		return fmt.Errorf("generation %d: %w: %s", n, ErrDegraded, failed)
	}
}
