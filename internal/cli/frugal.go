package cli

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// garbagePercent is what may be left behind of what is known, before it is
	// collected: what is known of thousands of instances stays, and what each
	// change leaves behind need not be as much again.
	garbagePercent = 75
	// startTime is how long lbctl may use all processors: it reads the whole
	// catalog. After that there is one change now and then.
	startTime = 15 * time.Second
)

// beFrugal leaves memory and processors to nginx, until ctx is done. With several
// processors Go looks for work on the others whenever there is some on one, which
// for many small pieces, as watches, probes and nginx's questions are, costs as
// much as they do. GOGC and GOMAXPROCS, where the environment has them, stay.
func beFrugal(ctx context.Context, environ []string) error {
	if lookup(environ, "GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(startTime):
	}
	if lookup(environ, "GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	debug.FreeOSMemory() // what only the start needed
	return nil
}
