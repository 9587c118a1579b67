package consultest

import "syscall"

// agentAttributes let an agent end with the test binary, however that ends.
func agentAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
