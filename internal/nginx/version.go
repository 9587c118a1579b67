package nginx

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The versions of nginx with features that lbctl uses. Templates check other versions
// with nginxAtLeast.
const (
	// ResolveSince is the first version that can ask for the servers of an upstream by
	// DNS: "server ... service=... resolve" was commercial before.
	ResolveSince = "1.27.3"
	// ManyWorkersSince is the first version that closes every HTTP/2 connection of an
	// old worker at a reload, also one that was accepted a moment before.
	ManyWorkersSince = "1.27.1"
)

var versionPattern = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// AtLeast reports whether version is wanted or later. Both are three
// numbers like "1.25.1"; anything else is an error.
func AtLeast(version, wanted string) (bool, error) {
	v, err := versionNumbers(version)
	if err != nil {
		return false, err
	}
	w, err := versionNumbers(wanted)
	if err != nil {
		return false, err
	}
	for n := range w {
		if v[n] != w[n] {
			return v[n] > w[n], nil
		}
	}
	return true, nil
}

func versionNumbers(version string) ([3]int, error) {
	var numbers [3]int
	if !versionPattern.MatchString(version) {
		return numbers, fmt.Errorf("version %q, want three numbers like \"1.25.1\"", version)
	}
	for n, part := range strings.Split(version, ".") {
		number, err := strconv.Atoi(part)
		if err != nil {
			return numbers, fmt.Errorf("version %q: %w", version, err)
		}
		numbers[n] = number
	}
	return numbers, nil
}
