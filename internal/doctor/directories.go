package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lbctl/internal/daemon"
	"lbctl/internal/nginx"
)

// The free space of a disk, in bytes, below which a check speaks. A generation of a thousand
// services has some MiB, and keeping twenty needs room for one more.
const (
	littleSpace = 256 << 20
	noSpace     = 16 << 20
	fewInodes   = 1000
)

// maxSocketPath is the length of a unix socket's path on Linux, without the NUL that ends it.
const maxSocketPath = 107

func checkDirectories(_ context.Context, e *examination) []Finding {
	findings := append(checkDirectory("--state-dir", e.Config.StateDir), checkDirectory("--run-dir", e.Config.RunDir)...)
	if socket := daemon.SocketPath(e.Config.RunDir); len(socket) > maxSocketPath {
		findings = append(findings, mend(failed(fmt.Sprintf("the path of the socket %s has %d bytes", socket, len(socket)), fmt.Sprintf("at most %d", maxSocketPath)),
			"choose a shorter --run-dir")...)
	}
	if len(findings) > 0 {
		return findings
	}
	return ok("%s and %s are writable, with enough space", e.Config.StateDir, e.Config.RunDir)
}

// checkDirectory checks a directory, and its disk.
func checkDirectory(flag, path string) []Finding {
	found, findings := usable(flag, path)
	if findings != nil {
		return findings
	}
	name := fmt.Sprintf("%s %s", flag, path)
	var disk unix.Statfs_t
	if err := unix.Statfs(found, &disk); err != nil {
		return failed(fmt.Sprintf("%s: %v", name, err), "a directory that lbctl can use")
	}
	free := disk.Bavail * uint64(disk.Bsize)
	const mender = "remove what is not needed from the disk, or choose another directory"
	switch {
	case disk.Files > 0 && disk.Ffree < fewInodes:
		return mend(warning(fmt.Sprintf("%s: its disk has room for %d more files", name, disk.Ffree), fmt.Sprintf("at least %d", fewInodes)), mender)
	case free < noSpace:
		return mend(failed(fmt.Sprintf("%s: its disk has %d MiB left", name, free>>20), fmt.Sprintf("at least %d MiB", littleSpace>>20)), mender)
	case free < littleSpace:
		return mend(warning(fmt.Sprintf("%s: its disk has %d MiB left", name, free>>20), fmt.Sprintf("at least %d MiB", littleSpace>>20)), mender)
	}
	return nil
}

// usable checks that lbctl can write to a directory, or to the nearest one above, in which it would
// make it. It returns the one that there is.
func usable(flag, path string) (found string, findings []Finding) {
	found = path
	info, err := os.Stat(found)
	for errors.Is(err, fs.ErrNotExist) && found != "/" {
		found = filepath.Dir(found)
		info, err = os.Stat(found)
	}
	name := fmt.Sprintf("%s %s", flag, path)
	switch {
	case err != nil:
		return found, failed(fmt.Sprintf("%s: %v", name, err), "a directory that lbctl can use")
	case !info.IsDir():
		return found, failed(fmt.Sprintf("%s: %s is no directory", name, found), "a directory")
	}
	if err := unix.Access(found, unix.W_OK|unix.X_OK); err != nil {
		return found, failed(fmt.Sprintf("%s: %s may not write to %s, which belongs to %s: %v", name, userName(os.Geteuid()), found, ownerOf(info), err),
			"a directory that lbctl can write to")
	}
	return found, nil
}

func ownerOf(info fs.FileInfo) string {
	if stat, is := info.Sys().(*syscall.Stat_t); is {
		return userName(int(stat.Uid))
	}
	return "another user"
}

func userName(uid int) string {
	if found, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return found.Username
	}
	return fmt.Sprintf("user %d", uid)
}

// pinnedLong is how long a generation may be pinned before a check speaks.
const pinnedLong = 24 * time.Hour

// leftoverAge is how old an unfinished generation is that no lbctl makes any more.
const leftoverAge = time.Hour

func checkGenerations(ctx context.Context, e *examination) []Finding {
	var findings []Finding
	if pin := e.pinned(); pin > pinnedLong {
		findings = append(findings, mend(warning(fmt.Sprintf("a generation has been pinned for %d hours: changes of routes and templates wait", int(pin.Hours())), "that nginx follows Consul"),
			"lbctl resume --wait 60s")...)
	}
	if aside := e.leftovers(); len(aside) > 0 {
		findings = append(findings, mend(warning(fmt.Sprintf("%s holds what no lbctl uses: %s", e.Config.StateDir, some(aside)), "only files of lbctl"),
			"look at them, and remove them")...)
	}
	current, err := os.Readlink(filepath.Join(e.Config.StateDir, "current"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.Daemon.answers() && e.Daemon.Status.Nginx.Running:
		findings = append(findings, mend(failed("there is no current generation on disk", "the link current in "+e.Config.StateDir), "restart lbctl: it makes the link again")...)
	case err == nil && e.nginx.running && !e.Daemon.answers():
		findings = append(findings, e.behind(ctx, current)...)
	}
	if len(findings) > 0 {
		return findings
	}
	if err != nil {
		return ok("no generation is on disk yet")
	}
	return ok("%s is current, and nothing is left over", filepath.Base(current))
}

// behind finds an nginx that serves an older generation while no daemon runs.
func (e *examination) behind(ctx context.Context, current string) []Finding {
	want, err := strconv.Atoi(strings.TrimLeft(filepath.Base(current), "0"))
	if err != nil {
		return nil
	}
	serving, err := nginx.Observe(e.Config.RunDir, e.nginx.binary).Serving(ctx)
	if err != nil || serving == want {
		return nil
	}
	return mend(warning(fmt.Sprintf("nginx serves generation %d, and %d is current", serving, want), "that nginx serves the current one"), "start lbctl: it reloads nginx")
}

// pinned returns how long a generation has been pinned; 0 if none is.
func (e *examination) pinned() time.Duration {
	if e.Daemon.answers() {
		if pin := e.Daemon.Status.Frozen; pin != nil && !pin.Since.IsZero() {
			return e.Now().Sub(pin.Since)
		}
		return 0
	}
	info, err := os.Stat(filepath.Join(e.Config.StateDir, "frozen.json"))
	if err != nil {
		return 0
	}
	return e.Now().Sub(info.ModTime())
}

// leftovers returns the files that lbctl has moved aside or not finished.
func (e *examination) leftovers() (names []string) {
	for _, dir := range []string{e.Config.StateDir, filepath.Join(e.Config.StateDir, "generations"), e.Config.RunDir} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			name := entry.Name()
			info, err := entry.Info()
			if err != nil {
				continue
			}
			unfinished := name == ".new" || strings.HasPrefix(name, "test-")
			if strings.Contains(name, ".broken") || unfinished && e.Now().Sub(info.ModTime()) > leftoverAge {
				names = append(names, filepath.Join(dir, name))
			}
		}
	}
	return names
}
