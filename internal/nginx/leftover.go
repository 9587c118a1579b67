package nginx

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// EndLeftovers makes room for an nginx that a supervisor starts, after the master process of the one
// before was killed: its workers hold the ports, and its generation.sock is there, which nginx refuses
// to bind. The workers get QUIT, so they finish their requests. EndLeftovers does nothing while no nginx
// tries to start: workers without a master are better than none. It returns the workers' process ids.
//
// nginx tries to bind for 2.5 seconds, so call it once a second while there is no master process.
func (i *Instance) EndLeftovers() (ended []int, err error) {
	if i.master() != 0 || !i.starts() {
		return nil, nil
	}
	if ended, err = i.leftovers(); err != nil {
		return nil, fmt.Errorf("look for workers of a killed nginx: %w", err)
	}
	for _, pid := range ended {
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return ended, fmt.Errorf("end process %d, a worker of a killed nginx: %w", pid, err)
		}
	}
	if len(ended) == 0 && i.listens() { // the nginx that starts has got it meanwhile
		return nil, nil
	}
	if err := os.Remove(i.socketPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ended, fmt.Errorf("remove the socket of a killed nginx: %w", err)
	}
	return ended, nil
}

// starts reports whether an nginx tries to start with the current generation. Until it runs, its title
// is its command line.
func (i *Instance) starts() bool {
	conf := filepath.Join(CurrentDir(i.opts.StateDir), MainFile)
	pids, err := processIDs()
	return err == nil && slices.ContainsFunc(pids, func(pid int) bool {
		words := strings.Fields(commandLine(pid))
		return len(words) > 0 && filepath.Base(words[0]) == filepath.Base(i.opts.Binary) && slices.Contains(words, conf) && !slices.Contains(words, "-t")
	})
}

// listens reports whether a process accepts connections at generation.sock.
func (i *Instance) listens() bool {
	conn, err := net.DialTimeout("unix", i.socketPath(), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// leftovers returns the workers without a master process that accept connections at generation.sock.
func (i *Instance) leftovers() ([]int, error) {
	sockets, err := i.listeningSockets()
	if err != nil {
		return nil, err
	}
	pids, err := processIDs()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		if !accepts(commandLine(pid)) {
			return true
		}
		parent, _, err := stat(pid, time.Time{})
		if err != nil || strings.HasPrefix(commandLine(parent), masterTitle) { // its master has just started
			return true
		}
		links, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
		return err != nil || !slices.ContainsFunc(links, func(link string) bool {
			target, err := os.Readlink(link)
			return err == nil && slices.Contains(sockets, target)
		})
	}), nil
}

// listeningSockets returns generation.sock as /proc/PID/fd names it: "socket:[1234]".
func (i *Instance) listeningSockets() (sockets []string, err error) {
	list, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	defer list.Close()
	for lines := bufio.NewScanner(list); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path
		const listening = "00010000" // the flag of a socket that accepts connections
		fields := strings.Fields(lines.Text())
		if len(fields) >= 8 && fields[3] == listening && strings.HasSuffix(lines.Text(), " "+i.socketPath()) {
			sockets = append(sockets, "socket:["+fields[6]+"]")
		}
	}
	return sockets, nil
}
