package registration

import (
	"fmt"
	"os"
	"strings"
)

// processIdentity identifies a process among all others, including earlier ones and those of
// other machines and containers: by the boot, the namespace of process ids, the id, and the
// start time. It is empty if there is no such process.
func processIdentity(pid int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The start time is field 22 of proc(5)'s stat; statFields cuts off two fields.
	_, rest, ok := statFields(content)
	if !ok || len(rest) < 20 || rest[0][0] == 'Z' {
		return ""
	}
	return fmt.Sprintf("%s/%d/%s", processNamespace(), pid, rest[19])
}

// sameProcessNamespace reports whether the identity is that of a process of this boot and
// namespace, where ids can be compared.
func sameProcessNamespace(identity string) bool {
	here := processNamespace()
	return here != "" && strings.HasPrefix(identity, here+"/")
}

// processNamespace identifies the boot and the namespace of process ids; empty if they can't
// be read.
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
