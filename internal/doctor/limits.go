package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lbctl/internal/disk"
	"lbctl/internal/nginx"
)

// fewFiles is how many open files a worker should have at least: each call needs two.
const fewFiles = 4096

func checkLimits(_ context.Context, e *examination) []Finding {
	if e.nginx.build.Version == "" {
		return skipped("nginx can't be run")
	}
	settings, err := e.Config.Nginx.Settings(e.Config.StateDir, e.Config.RunDir, e.nginx.build)
	if err != nil {
		return mend(failed(err.Error(), "settings that this nginx and this machine have"), "change the flag or the variable that it names")
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return skipped("%v", err)
	}
	whose := "this process"
	if e.nginx.running { // nginx may have other limits than a shell
		pid := e.nginx.processes.Master.PID
		hard, err := openFilesOf(pid)
		if err != nil {
			return skipped("%v", err)
		}
		limit.Max, whose = hard, fmt.Sprintf("nginx, process %d,", pid)
	}
	wanted := settings.OpenFiles
	if wanted == 0 {
		wanted = fewFiles
	}
	found := fmt.Sprintf("%s may have %d open files", whose, limit.Max)
	switch {
	case limit.Max < uint64(wanted) && settings.OpenFiles > 0 && os.Geteuid() != 0:
		return failed(found, fmt.Sprintf("%d, as --open-files says", wanted))
	case limit.Max < fewFiles || settings.OpenFiles > 0 && settings.OpenFiles < fewFiles:
		if settings.OpenFiles > 0 && uint64(settings.OpenFiles) < limit.Max {
			found = fmt.Sprintf("--open-files is %d", settings.OpenFiles)
		}
		return warning(found, fmt.Sprintf("at least %d: each call needs two", fewFiles))
	}
	if f := e.fullWorkers(); f != nil {
		return f
	}
	return ok("%s", found)
}

var connectionsPattern = regexp.MustCompile(`(?m)^\s*worker_connections\s+(\d+)\s*;`)

// fullWorkers finds workers that have nearly as many connections as they may have.
func (e *examination) fullWorkers() []Finding {
	text, err := disk.ReadFile(filepath.Join(e.Config.StateDir, "current", nginx.MainFile), maxConf)
	match := connectionsPattern.FindSubmatch(text)
	if err != nil || match == nil {
		return nil
	}
	most, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return nil
	}
	for _, worker := range e.nginx.processes.Workers {
		if n := connections(worker.PID); n*5 >= most*4 {
			return warning(fmt.Sprintf("the worker %d has %d sockets, and worker_connections is %d", worker.PID, n, most), "less than four fifths")
		}
	}
	return nil
}

const maxConf = 1 << 20 // bytes of nginx.conf

// connections returns how many sockets a process has, 0 if it is another user's.
func connections(pid int) (n int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // its pattern is valid
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// openFilesOf returns how many open files a process may set as its limit: the second value of
// the line "Max open files 1024 1048576 files".
func openFilesOf(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/limits", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if values, isLine := strings.CutPrefix(line, "Max open files"); isLine {
			if fields := strings.Fields(values); len(fields) > 1 {
				return strconv.ParseUint(fields[1], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s has no line with the limit of open files", path)
}
