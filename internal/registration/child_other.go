//go:build unix && !linux

package registration

import (
	"os"
	"syscall"
)

// childAttributes give the command a process group of its own, so that a Ctrl-C
// or a supervisor's stop of the whole group reaches only the registrar, which
// keeps the order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// selfPath is the registrar's own program.
func selfPath() (string, error) { return os.Executable() }

// setProcessName does nothing: only Linux can do that.
func setProcessName(string) {}

// groupMembers tells only whether the group has a process: its leader stands for
// all. Without /proc a stopped process can't be told from a running one.
func groupMembers(pgid int) []groupMember {
	if syscall.Kill(-pgid, 0) != nil {
		return nil
	}
	return []groupMember{{pid: pgid}}
}
