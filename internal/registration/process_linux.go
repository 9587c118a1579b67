package registration

import (
	"fmt"
	"os"
	"strings"
)

// processIdentity tells a process from all others, former ones and those of other
// machines and containers included: the boot, the namespace of process ids, the
// id, and when the process started. It is empty when there is no such process.
func processIdentity(pid int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// Field 22 of proc(5)'s stat is the start; two fields are cut off.
	_, rest, ok := statFields(content)
	if !ok || len(rest) < 20 || rest[0][0] == 'Z' {
		return ""
	}
	return fmt.Sprintf("%s/%d/%s", processNamespace(), pid, rest[19])
}

// sameProcessNamespace tells whether the identity is that of a process which
// would have the same id here.
func sameProcessNamespace(identity string) bool {
	here := processNamespace()
	return here != "" && strings.HasPrefix(identity, here+"/")
}

// processNamespace is the boot and the namespace of process ids, empty when they
// can't be read.
func processNamespace() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	namespace = strings.TrimSuffix(strings.TrimPrefix(namespace, "pid:["), "]")
	return strings.TrimSpace(string(boot)) + "/" + namespace
}
