package registrarcli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// outputQueue is how many lines can wait for a slow reader. Further ones are lost.
	outputQueue = 256
	// outputPatience is how long put waits for one line. After a timeout, put doesn't wait
	// at all until a line has been written again.
	outputPatience = 200 * time.Millisecond
	// outputFlush is how long the end of the program waits for lines.
	outputFlush = time.Second
)

// output is standard error for a program that must go on working if its output fails: if the
// reader has ended, does not read, or the disk is full. It never fails, and never delays its
// caller for long.
type output struct {
	w     io.Writer
	lines chan line
	stuck atomic.Bool
	lost  atomic.Int64
}

type line struct {
	text    []byte
	written chan struct{} // closed when the line has been written
}

func newOutput(w io.Writer) *output {
	o := &output{w: w, lines: make(chan line, outputQueue)}
	go o.run()
	return o
}

// surviveClosedOutput makes writes to a closed standard output or standard error return an
// error. Otherwise Go would end the program with SIGPIPE. The signal is not ignored, because
// the command would inherit that.
func surviveClosedOutput() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// run writes lines until the program ends.
func (o *output) run() {
	for line := range o.lines {
		if lost := o.lost.Swap(0); lost > 0 {
			fmt.Fprintf(o.w, "registrar: %d lines of the log are missing here, because they could not be written in time\n", lost)
		}
		_, _ = o.w.Write(line.text) // there is nowhere to report the error
		o.stuck.Store(false)
		close(line.written)
	}
}

func (o *output) Write(text []byte) (int, error) {
	patience := outputPatience
	if o.stuck.Load() {
		patience = 0
	}
	if !o.put(line{bytes.Clone(text), make(chan struct{})}, patience) {
		o.stuck.Store(true)
	}
	return len(text), nil
}

// flush waits until all lines have been written, for outputFlush at most.
func (o *output) flush() { o.put(line{written: make(chan struct{})}, outputFlush) }

// put queues a line and reports whether it was written in time.
func (o *output) put(l line, patience time.Duration) bool {
	select {
	case o.lines <- l:
	default:
		o.lost.Add(1)
		return false
	}
	select {
	case <-l.written:
		return true
	case <-time.After(patience):
		return false
	}
}
