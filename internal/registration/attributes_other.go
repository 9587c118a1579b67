//go:build unix && !linux

package registration

import "syscall"

// childAttributes give the child a process group of its own, so that a Ctrl-C
// or a supervisor's stop of the whole group reaches only the registrar, which
// keeps the order. A child outlives a killed registrar here.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
