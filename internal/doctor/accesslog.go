package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lbctl/internal/accesslog"
	"lbctl/internal/nginx"
)

// logNeeded is the room without which nginx drops the lines of requests. lbctl takes lines out of
// the log as soon as it has read them, so little is enough while it runs.
const logNeeded = 4 << 20

const logMender = "remove what is not needed from the tmpfs, make it larger, or choose another --access-log-dir or a smaller --access-log-size"

// checkAccessLog checks that nginx can write its access log, without which the circuit breaker sees
// nothing.
func checkAccessLog(_ context.Context, e *examination) []Finding {
	settings, err := e.Config.Nginx.Settings(e.Config.StateDir, e.Config.RunDir, e.nginx.build)
	if err != nil {
		return skipped("%v", err)
	}
	dir := settings.AccessLogDir
	if dir == "" {
		return ok("there is none: the run directory is not on a tmpfs, and without --access-log-dir there is no circuit breaker")
	}
	place, findings := usable("--access-log-dir", dir)
	if findings != nil {
		return findings
	}
	if err := accesslog.InMemory(place); err != nil {
		return mend(failed(err.Error(), "a tmpfs: lbctl run does not start without"), "choose a directory below /dev/shm, or leave out --access-log-dir")
	}
	path := accesslog.Path(dir)
	size := cmp.Or(e.Config.Nginx.AccessLogSize, accesslog.DefaultSize(place))
	room, err := roomFor(path, place)
	switch {
	case err != nil:
		return failed(err.Error(), "a directory that lbctl can use")
	case room < logNeeded:
		return mend(failed(fmt.Sprintf("%s has room for %d MiB: nginx drops the lines of requests, and the circuit breaker does not see them", path, room>>20),
			fmt.Sprintf("at least %d MiB", size>>20)), logMender)
	case room < uint64(size):
		return mend(warning(fmt.Sprintf("%s has room for %d MiB: nginx may drop the lines of requests while lbctl does not run", path, room>>20),
			fmt.Sprintf("at least %d MiB", size>>20)), logMender)
	}
	if e.nginx.running {
		if lost := lostLog(e.nginx.processes, path); lost != 0 {
			return mend(failed(fmt.Sprintf("process %d of nginx writes to a file that was removed from %s: lbctl does not see its requests", lost, path), "that it writes to the file at that path"),
				fmt.Sprintf("let the user of nginx's workers pass through to %s, and have nginx open its logs again: kill -USR1 %d", dir, e.nginx.processes.Master.PID))
		}
	}
	if settings.LogRequests {
		if findings := checkOwnLogs(e, path); findings != nil {
			return findings
		}
	}
	return ok("%s can be written, with enough space", path)
}

// roomFor returns how many bytes a file can have in a directory: those that are free, and those
// that it has already.
func roomFor(path, dir string) (uint64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	room := disk.Bavail * uint64(disk.Bsize)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return room, nil
	} else if err != nil {
		return 0, err
	}
	if stat, is := info.Sys().(*syscall.Stat_t); is {
		room += uint64(stat.Blocks) * 512
	}
	return room, nil
}

// lostLog returns a worker of nginx that still has a former file of the log open, though not the
// one at its path; 0 if there is none. lbctl replaces the file now and then, and nginx takes the new
// one a moment later.
func lostLog(processes nginx.Processes, path string) int {
	const moment = 2 * time.Second
	for _, p := range processes.Workers {
		for deadline := time.Now().Add(moment); hasFormer(p.PID, path); time.Sleep(moment / 20) {
			if time.Now().After(deadline) {
				return p.PID
			}
		}
	}
	return 0
}

// hasFormer reports whether a process has a file open that was at a path and was removed, and does
// not have the one that is there. A process of another user has none.
func hasFormer(pid int, path string) bool {
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	former := false
	for _, fd := range fds {
		switch target, _ := os.Readlink(fd); target {
		case path:
			return false
		case path + " (deleted)":
			former = true
		}
	}
	return former
}
