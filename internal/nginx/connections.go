package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Connections are nginx's connections and requests, of all workers. The totals begin with 0 when
// the master process starts, and go on over reloads.
type Connections struct {
	Active int64 // connections of clients, idle ones included
	// Reading, Writing and Waiting say what they do: nginx reads the head of a request, works on a
	// request, or waits for one. Each stream of HTTP/2 counts as reading or writing, so the sum
	// can be more than Active. The question itself is one of Writing.
	Reading, Writing, Waiting int64

	Accepted, Handled int64 // connections in total
	Requests          int64 // requests that have begun, in total; the question is one of them
}

// ErrNoConnections says that this nginx can't count its connections: it was built without
// --with-http_stub_status_module, or serves a generation of an earlier lbctl.
var ErrNoConnections = errors.New("nginx does not count its connections")

// Connections asks nginx for its connections and requests. The error is ErrNotRunning if nginx does
// not answer.
func (i *Instance) Connections(ctx context.Context) (Connections, error) {
	if !i.build.CountsConnections {
		return Connections{}, ErrNoConnections
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lbctl/connections", nil)
	if err != nil {
		return Connections{}, err
	}
	response, err := i.socket.Do(request)
	if err != nil {
		return Connections{}, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), rootCause(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	if err != nil {
		return Connections{}, fmt.Errorf("%w: ask %s: %w", ErrNotRunning, i.socketPath(), err)
	}
	if response.StatusCode != http.StatusOK {
		return Connections{}, ErrNoConnections
	}
	return parseConnections(string(body))
}

// parseConnections parses the text of nginx's stub_status.
func parseConnections(text string) (c Connections, err error) {
	const form = "Active connections: %d \nserver accepts handled requests\n %d %d %d \nReading: %d Writing: %d Waiting: %d"
	_, err = fmt.Sscanf(strings.TrimSpace(text), form, &c.Active, &c.Accepted, &c.Handled, &c.Requests, &c.Reading, &c.Writing, &c.Waiting)
	if err != nil {
		return Connections{}, fmt.Errorf("read nginx's stub_status: %w, got %q", err, text)
	}
	return c, nil
}
