package nginx

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
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

// A Resolver is who nginx asks for the servers of its upstreams.
type Resolver interface {
	// Known reports whether the running nginx has servers of the upstream: it
	// keeps them over a reload.
	Known(upstream string) bool
	// Reloading is called before nginx is told to reload, and what it returns when
	// new workers serve.
	Reloading() (reloaded func())
}

// bootstrap is the bootstrap servers of all upstreams. An nginx that asks for the
// servers of its upstreams has none until it has been answered, so each upstream
// includes a file with the servers that are known. An nginx that starts reads these
// files, and so does a running one for upstreams that are new to it. nginx keeps what
// it has read until the next reload, so at a reload the files of all other upstreams
// are hidden.
//
//	<state>/seeds/start/1f/grpc-hello.conf   for an nginx that starts
//	<state>/seeds/reload/                    those of them that a reload reads
//	<state>/seeds/now -> start               what nginx reads
//
// The directory has kept the name that it had in earlier releases: generations on
// disk include files by it.
//
// The files are in 64 directories because there may be thousands: nginx reads a whole
// directory to find out which files a pattern means, and a directory for each file
// would make the first start slow.
type bootstrap struct {
	dir string

	mu      sync.Mutex
	written map[string]string // the content of start/, by upstream; nil: not known
	// shown is what nginx was shown at reloads, by the number that it answers then.
	shown map[string]map[string]string
}

// markerFile is included by generation.conf: it has nginx answer which set of
// bootstrap servers it has read. No upstream is called so.
const markerFile = "_seeded"

// startSet is what nginx answers when it has started with bootstrap servers; after a
// reload it answers a number.
const startSet = "start"

func markerConf(set string) string {
	return fmt.Sprintf("location = /seeded { return 200 \"%s\\n\"; }\n", set)
}

func (b *bootstrap) path(set string) string { return filepath.Join(b.dir, set) }

const (
	shards          = 64
	bootstrapSuffix = ".conf"
)

// shard is the directory that an upstream's file is in.
func shard(upstream string) string {
	h := fnv.New32a()
	h.Write([]byte(upstream))
	return fmt.Sprintf("%02x", h.Sum32()%shards)
}

func bootstrapFile(dir, upstream string) string {
	return filepath.Join(dir, shard(upstream), upstream+bootstrapSuffix)
}

// BootstrapDir is where nginx reads bootstrap servers, by the patterns of
// BootstrapPattern.
func BootstrapDir(stateDir string) string { return filepath.Join(stateDir, "seeds", "now") }

// BootstrapPattern is the pattern by which an upstream includes its bootstrap servers
// from a BootstrapDir. It matches one file; it is a pattern because nginx then accepts
// that there is no such file.
func BootstrapPattern(dir, upstream string) string {
	return strings.TrimSuffix(bootstrapFile(dir, upstream), "f") + "[f]"
}

// WriteBootstrapServers says with which servers each upstream starts: lines of nginx's
// configuration, by upstream. It writes only what differs. A file that can't be written
// doesn't keep the others from being written: failed says why, by upstream, and nginx
// starts with the older servers of that upstream. The error is ErrStore: nothing could
// be written.
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
		if err := b.init(); err != nil {
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
		if err := replace(bootstrapFile(start, upstream), lines); err != nil {
			failed[upstream] = err
			continue
		}
		b.written[upstream] = lines
	}
	return failed, nil
}

// init reads what an earlier process wrote, and shows it to an nginx that starts.
func (b *bootstrap) init() error {
	for _, dir := range []string{b.dir, b.path(startSet), b.path("reload")} {
		if _, err := disk.Directory(dir); err != nil {
			return err
		}
	}
	if err := b.show(startSet); err != nil {
		return err
	}
	start := b.path(startSet)
	if err := replace(bootstrapFile(start, markerFile), markerConf(startSet)); err != nil {
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
// what a crash left half written.
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

// recover shows everything to an nginx that starts, if an earlier process ended in
// the middle of a reload.
func (b *bootstrap) recover() error {
	if _, err := os.Lstat(b.path("now")); err != nil {
		return nil // there are none yet
	}
	return errors.Join(b.removeUnfit(), b.show(startSet))
}

// removeUnfit removes what is not a regular file: nginx would wait for ever to read a
// named pipe, or not start.
func (b *bootstrap) removeUnfit() error {
	shards, err := filepath.Glob(filepath.Join(b.path(startSet), "*"))
	if err != nil {
		return err
	}
	for _, shard := range shards {
		entries, _ := os.ReadDir(shard) // nginx reads nothing of what is not a directory
		for _, entry := range entries {
			if !entry.Type().IsRegular() {
				err = errors.Join(err, os.RemoveAll(filepath.Join(shard, entry.Name())))
			}
		}
	}
	return err
}

// hide shows to a reload only the bootstrap servers of upstreams that nginx has no
// servers of.
func (b *bootstrap) hide(known func(upstream string) bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		return nil // nothing was written yet
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
		if err := replace(bootstrapFile(reload, upstream), lines); err != nil {
			return err
		}
	}
	if len(shown) > 0 {
		set := strconv.FormatInt(time.Now().UnixNano(), 10)
		if err := replace(bootstrapFile(reload, markerFile), markerConf(set)); err != nil {
			return err
		}
		if b.shown == nil {
			b.shown = map[string]map[string]string{}
		}
		b.shown[set] = shown
	}
	return b.show("reload")
}

// unhide shows everything again, for an nginx that starts.
func (b *bootstrap) unhide() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		return nil
	}
	return b.show(startSet)
}

// show has nginx read one of the sets, from one moment to the next.
func (b *bootstrap) show(set string) error {
	link, next := b.path("now"), b.path(".now")
	if target, err := os.Readlink(link); err == nil && target == set {
		return nil
	}
	if err := os.RemoveAll(next); err != nil { // whatever it is
		return err
	}
	if info, err := os.Lstat(link); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		if _, err := disk.MoveAside(link); err != nil { // the rename can't replace a directory
			return err
		}
	}
	if err := os.Symlink(set, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

// of is the servers in a set that nginx has read, by upstream; "" where they are not
// known any more, as those that nginx started with: the files may have changed since.
func (b *bootstrap) of(set string) (map[string]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if shown, ok := b.shown[set]; ok {
		// nginx has left all earlier sets behind; a later one may be on its way.
		maps.DeleteFunc(b.shown, func(other string, _ map[string]string) bool { return other < set })
		return maps.Clone(shown), nil
	}
	reload := b.path("reload")
	if conf, err := disk.ReadFile(bootstrapFile(reload, markerFile), maxFile); err == nil && string(conf) == markerConf(set) {
		return readBootstrapFiles(reload) // an earlier process showed it
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

// replace writes a small file in one step, with its directory. It doesn't wait until
// the file is on disk: it is written again at the next start.
func replace(path, content string) error {
	if _, err := disk.Directory(filepath.Dir(path)); err != nil {
		return err
	}
	if _, err := disk.Clear(path); err != nil {
		return err
	}
	next := path + ".new"
	if info, err := os.Lstat(next); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		if err := os.Remove(next); err != nil { // to write to a named pipe would wait
			return err
		}
	}
	if err := os.WriteFile(next, []byte(content), 0o644); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	return os.Rename(next, path)
}

// BootstrapServers asks nginx which bootstrap servers it has read when it started or
// last reloaded: lines of its configuration, by upstream. The lines are empty where
// they are not known: nginx read the files before lbctl changed them. nginx keeps what
// it has read until Reload. The error is that of Serving.
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
	return i.bootstrap.of(strings.TrimSpace(string(body)))
}

// Reload has nginx read the current generation again, without the bootstrap servers
// that it no longer needs. The error is ErrDegraded when nginx doesn't answer from it,
// or ErrNotRunning.
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
