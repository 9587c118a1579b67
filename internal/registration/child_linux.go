package registration

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// childAttributes puts the command into its own process group. A Ctrl-C, or a supervisor
// that signals the whole group, then reaches only the registrar, which stops the command in
// the right order. The kernel sends the command SIGTERM when the registrar is killed; the
// watchdog ends the rest of the group.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// selfPath is the registrar's own program, even if a newer version has replaced the file.
func selfPath() (string, error) { return "/proc/self/exe", nil }

// setProcessName sets the name that ps and top show.
func setProcessName(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // only for people
}

// groupMembers returns the processes of the group that have not ended.
func groupMembers(pgid int) []groupMember {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is valid
	var members []groupMember
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, rest, ok := statFields(content)
		if !ok || len(rest) < 3 || string(rest[2]) != strconv.Itoa(pgid) {
			continue
		}
		switch state := rest[0][0]; state {
		case 'Z', 'X':
		default:
			members = append(members, groupMember{pid: pid, stopped: state == 'T'})
		}
	}
	return members
}

// statFields cuts a line of /proc/PID/stat: the process id, and the fields that
// follow the name. The name can hold spaces and parentheses.
func statFields(line []byte) (pid int, rest [][]byte, ok bool) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return 0, nil, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	rest = bytes.Fields(line[end+1:])
	return pid, rest, err == nil && len(rest) > 0
}
