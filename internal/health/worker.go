package health

import (
	"context"
	"net"
	"strconv"

	"google.golang.org/grpc/peer"
)

// workerListener accepts connections of nginx's workers. Their remote address is the worker.
type workerListener struct{ net.Listener }

func (l workerListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return workerConn{conn, worker(peerPID(conn))}, nil
}

type workerConn struct {
	net.Conn
	worker worker
}

func (c workerConn) RemoteAddr() net.Addr { return c.worker }

// worker is the process id of a worker of nginx; 0: not known.
type worker int

func (worker) Network() string  { return "unix" }
func (w worker) String() string { return "worker " + strconv.Itoa(int(w)) }

// workerOf returns the worker that passes on a call.
func workerOf(ctx context.Context) worker {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return 0
	}
	w, _ := p.Addr.(worker)
	return w
}
