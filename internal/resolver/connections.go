package resolver

import (
	"container/list"
	"net"
	"sync"
	"syscall"
)

// maxConnections bounds the TCP connections. For each one beyond it, another one is closed: one
// that has sent no question, or else an idle one, since nginx asks as soon as it has connected.
const maxConnections = 1024

// connectionLimit returns maxConnections, or less if the process may have few files open: a
// connection that can't be accepted would wait until another one ends.
func connectionLimit() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return maxConnections
	}
	return int(min(maxConnections, max(1, files.Cur/4)))
}

// phase is the phase of a connection.
type phase int

// Connections in an earlier phase make room before those in a later one.
const (
	silent phase = iota // it has sent no question yet
	idle                // it has got its answer
	asking              // its question is being answered
	phases
)

// connections has the open TCP connections.
type connections struct {
	limit int
	all   sync.WaitGroup

	mu   sync.Mutex
	n    int
	open [phases]list.List // of *connection; those that are in the phase for longest come first
}

type connection struct {
	net.Conn
	phase   phase
	element *list.Element // nil once the connection has made room
}

func newConnections(limit int) *connections { return &connections{limit: limit} }

// serve calls handle for a connection in a goroutine, and closes the connection when it
// returns. handle calls enter when the connection enters a phase. serve reports whether it
// has closed another connection because there were too many.
func (c *connections) serve(conn net.Conn, handle func(conn net.Conn, enter func(phase))) (full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if full = c.n >= c.limit; full {
		c.makeRoom()
	}
	c.n++
	added := &connection{Conn: conn}
	added.element = c.open[silent].PushBack(added)
	c.all.Go(func() {
		defer c.remove(added)
		handle(conn, func(p phase) { c.enter(added, p) })
	})
	return full
}

// makeRoom closes the connection that is least likely to be nginx's. Its goroutine then
// ends.
func (c *connections) makeRoom() {
	for p := range c.open {
		if first := c.open[p].Front(); first != nil {
			c.take(first.Value.(*connection))
			return
		}
	}
}

func (c *connections) enter(conn *connection, p phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn.element == nil {
		return
	}
	c.open[conn.phase].Remove(conn.element)
	conn.phase, conn.element = p, c.open[p].PushBack(conn)
}

func (c *connections) remove(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.take(conn)
}

// take closes a connection and removes it.
func (c *connections) take(conn *connection) {
	if conn.element == nil {
		return
	}
	c.open[conn.phase].Remove(conn.element)
	conn.element = nil
	c.n--
	conn.Close()
}

// wait waits until all connections are closed.
func (c *connections) wait() { c.all.Wait() }
