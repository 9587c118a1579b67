//go:build unix && !linux

package registration

import (
	"os"
	"syscall"
)

// childAttributes puts the command into its own process group. A Ctrl-C, or a supervisor that
// signals the whole group, then reaches only the registrar, which stops the command in the right
// order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// selfPath is the registrar's own program.
func selfPath() (string, error) { return os.Executable() }

// setProcessName does nothing: only Linux has this function.
func setProcessName(string) {}

// groupMembers returns only the group's leader, if the group has any process. Without /proc it
// can't distinguish a stopped process from a running one.
func groupMembers(pgid int) []groupMember {
	if syscall.Kill(-pgid, 0) != nil {
		return nil
	}
	return []groupMember{{pid: pgid}}
}
