package nginx

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// An nginx that asks for the servers of its upstreams has none until it has been
// answered. So there are seeds: a file for each upstream with the servers that are
// known, which the upstream includes. They are for an nginx that starts, and for
// upstreams that a running one doesn't have yet: whatever is in a file stays until
// the next reload, so that at a reload the files of all other upstreams are hidden.
//
//	<state>/seeds/start/1f/grpc-hello.conf   for an nginx that starts
//	<state>/seeds/reload/                    what is left of it for a reload
//	<state>/seeds/now -> start               what nginx reads
//
// There are shards because there may be thousands: nginx reads a whole directory to
// find out which files a pattern means, and making a directory for each is what
// would take longest at the first start.
type seeds struct {
	dir string

	mu      sync.Mutex
	written map[string]string // the content of start/, by upstream; nil: not known
}

// seededFile is included by generation.conf, so that nginx says whether it read
// any seeds. No upstream is called so.
const seededFile = "_seeded"

const seededConf = "location = /seeded { return 200 \"seeded\\n\"; }\n"

func (s *seeds) path(set string) string { return filepath.Join(s.dir, set) }

const (
	shards     = 64
	seedSuffix = ".conf"
)

// shard is the directory that an upstream's file is in.
func shard(upstream string) string {
	h := fnv.New32a()
	h.Write([]byte(upstream))
	return fmt.Sprintf("%02x", h.Sum32()%shards)
}

func seedFile(dir, upstream string) string {
	return filepath.Join(dir, shard(upstream), upstream+seedSuffix)
}

// SeedsDir is where nginx reads its seeds, by the patterns of Seeds.
func SeedsDir(stateDir string) string { return filepath.Join(stateDir, "seeds", "now") }

// Seeds is the pattern by which an upstream includes its seeds from SeedsDir. It is
// of one file, and a pattern all the same: for nginx that file need not be there.
func Seeds(seedsDir, upstream string) string {
	return strings.TrimSuffix(seedFile(seedsDir, upstream), "f") + "[f]"
}

// Seed says with which servers each upstream starts: lines of nginx's
// configuration, by upstream. Only what differs is written. The error is ErrStore;
// nginx then starts with older servers.
func (i *Instance) Seed(servers map[string]string) error {
	if err := i.seeds.write(servers); err != nil {
		return fmt.Errorf("write what nginx starts with: %w: %w", ErrStore, err)
	}
	return nil
}

func (s *seeds) write(servers map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.path("start")
	if s.written == nil {
		if err := s.init(); err != nil {
			return err
		}
	}
	for upstream := range s.written {
		if _, ok := servers[upstream]; ok {
			continue
		}
		if err := os.RemoveAll(seedFile(start, upstream)); err != nil {
			return err
		}
		delete(s.written, upstream)
	}
	for upstream, lines := range servers {
		if old, ok := s.written[upstream]; ok && old == lines {
			continue
		}
		if err := replace(seedFile(start, upstream), lines); err != nil {
			return err
		}
		s.written[upstream] = lines
	}
	return nil
}

// init reads what an earlier process wrote, and has nginx read what is there for
// a start.
func (s *seeds) init() error {
	for _, set := range []string{"start", "reload"} {
		if err := os.MkdirAll(s.path(set), 0o755); err != nil {
			return err
		}
	}
	if err := s.show("start"); err != nil {
		return err
	}
	start := s.path("start")
	if err := replace(seedFile(start, seededFile), seededConf); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(start, "*", "*"))
	if err != nil {
		return err
	}
	written := map[string]string{}
	for _, file := range files {
		upstream := strings.TrimSuffix(filepath.Base(file), seedSuffix)
		if upstream == seededFile {
			continue
		}
		lines, err := os.ReadFile(file)
		if err != nil || file != seedFile(start, upstream) { // a crash left it half written
			_ = os.RemoveAll(file)
			continue
		}
		written[upstream] = string(lines)
	}
	s.written = written
	return nil
}

// recover has nginx read what is there for a start, where an earlier process ended
// in the middle of a reload.
func (s *seeds) recover() error {
	if _, err := os.Lstat(s.path("now")); err != nil {
		return nil // there are none yet
	}
	return s.show("start")
}

// hide leaves for a reload only the seeds of upstreams that nginx has no servers
// of, and shows these.
func (s *seeds) hide(known func(upstream string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written == nil {
		return nil // nobody has given any
	}
	reload := s.path("reload")
	if err := os.RemoveAll(reload); err != nil {
		return err
	}
	if err := os.Mkdir(reload, 0o755); err != nil {
		return err
	}
	some := false
	for upstream, lines := range s.written {
		if known(upstream) {
			continue
		}
		some = true
		if err := replace(seedFile(reload, upstream), lines); err != nil {
			return err
		}
	}
	if some {
		if err := replace(seedFile(reload, seededFile), seededConf); err != nil {
			return err
		}
	}
	return s.show("reload")
}

// unhide shows what an nginx that starts is to read.
func (s *seeds) unhide() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written == nil {
		return nil
	}
	return s.show("start")
}

// show has nginx read one of the sets, from one moment to the next.
func (s *seeds) show(set string) error {
	link, next := s.path("now"), s.path(".now")
	if target, err := os.Readlink(link); err == nil && target == set {
		return nil
	}
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(set, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

// replace writes a small file in one step, with its directory. It is not waited for
// until it is on disk: a file of seeds is made again at the next start.
func replace(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, []byte(content), 0o644); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return os.Rename(next, path)
}

// Seeded asks nginx whether it read any seeds when it started or last reloaded.
// What it read it keeps until Reload. The error is that of Serving.
func (i *Instance) Seeded(ctx context.Context) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lbctl/seeded", nil)
	if err != nil {
		return false, err
	}
	response, err := i.socket.Do(request)
	if err != nil {
		return false, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), rootCause(err))
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK, err
}

// Reload has nginx read the current generation again, without the seeds it no
// longer needs. The error is ErrDegraded when nginx doesn't answer from it, or
// ErrNotRunning.
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
