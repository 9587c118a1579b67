//go:build unix && !linux

package consultest

import "syscall"

// agentAttributes are empty: only Linux can end an agent with the test binary.
func agentAttributes() *syscall.SysProcAttr { return nil }
