package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	// garbagePercent is the garbage at which a collection starts, as a percentage of
	// the live heap (GOGC). With thousands of instances most of the
	// heap is live, so Go's default of 100 would need far more memory.
	garbagePercent = 75
	// startTime is how long lbctl may use all processors after its start, while it
	// reads the whole catalog. Later it handles single changes.
	startTime = 15 * time.Second
)

// limitRuntime limits the memory and the processors that lbctl uses, and returns after
// startTime or when ctx is done. lbctl has thousands of small tasks: queries, probes and
// nginx's DNS queries. With several processors Go wakes a thread for each, which costs
// as much as the task. limitRuntime does not change GOGC and GOMAXPROCS if environ sets
// them.
func limitRuntime(ctx context.Context, environ []string) error {
	if !isSet(environ, "GOGC") {
		debug.SetGCPercent(garbagePercent)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(startTime):
	}
	if !isSet(environ, "GOMAXPROCS") {
		runtime.GOMAXPROCS(1)
	}
	debug.FreeOSMemory() // only the start needs much memory
	return nil
}

// isSet reports whether environ gives the variable a value.
func isSet(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(line string) bool {
		value, found := strings.CutPrefix(line, name+"=")
		return found && value != ""
	})
}
