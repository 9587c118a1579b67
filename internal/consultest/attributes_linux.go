package consultest

import "syscall"

// agentAttributes make an agent end with the test binary, also when that is killed.
func agentAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
