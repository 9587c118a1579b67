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
	// garbagePercent is how much garbage may pile up before it is collected, as a
	// percentage of the live heap (GOGC). With thousands of instances most of the
	// heap is live, so Go's default of 100 would need far more memory.
	garbagePercent = 75
	// startTime is how long lbctl may use all processors at its start, when it reads
	// the whole catalog. After that it handles one change now and then.
	startTime = 15 * time.Second
)

// limitRuntime leaves memory and processors to nginx, until ctx is done. With several
// processors Go wakes a thread for each small piece of work, and watches, probes and
// nginx's questions are thousands of small pieces: waking would cost as much as the
// work. GOGC and GOMAXPROCS stay as they are where environ has them.
func limitRuntime(ctx context.Context, environ []string) error {
	if !has(environ, "GOGC") {
		debug.SetGCPercent(garbagePercent)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(startTime):
	}
	if !has(environ, "GOMAXPROCS") {
		runtime.GOMAXPROCS(1)
	}
	debug.FreeOSMemory() // only the start needed that much
	return nil
}

// has reports whether environ gives the variable a value.
func has(environ []string, name string) bool {
	return slices.ContainsFunc(environ, func(line string) bool {
		value, found := strings.CutPrefix(line, name+"=")
		return found && value != ""
	})
}
