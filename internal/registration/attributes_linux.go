package registration

import "syscall"

// childAttributes give the child a process group of its own, so that a Ctrl-C
// or a supervisor's stop of the whole group reaches only the registrar, which
// keeps the order; and let it end when the registrar is killed, so that the
// port is free for the next one.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
