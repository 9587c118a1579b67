package daemon

import (
	"os"
	"os/signal"
	"syscall"
)

// surviveBrokenPipe has a write to a standard output or error that nobody reads any
// more fail with EPIPE. Go's default is that SIGPIPE ends the process: the daemon would
// die with the reader of its log, as in 'lbctl run 2>&1 | tee log' and Ctrl-C, which
// ends tee first.
//
// It holds for the rest of the process, which logs its end too. The signal is caught,
// not ignored: programs that the daemon runs would inherit the latter.
func surviveBrokenPipe() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // nobody needs to hear of it
}
