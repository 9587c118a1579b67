package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"lbctl/internal/printable"
	"lbctl/internal/requestlog"
)

// silence is how long a daemon that a client follows may send nothing, not even the empty lines
// that it sends every ten seconds.
const silence = 30 * time.Second

// longestLine bounds a line of the log, in bytes.
const longestLine = 1 << 20

// A LogsQuery says which lines of the log of requests and control events are wanted.
type LogsQuery struct {
	requestlog.Filter
	Limit  int  // the last ones, at most requestlog.MaxLimit
	Follow bool // and all that come
}

func (q LogsQuery) path() string {
	v := q.Values()
	v.Set(requestlog.ParamLimit, strconv.Itoa(q.Limit))
	if q.Follow {
		v.Set(requestlog.ParamFollow, "1")
	}
	return "/v1/logs?" + v.Encode()
}

// A LogLine is a line of the log, as the daemon has sent it and decoded.
type LogLine struct {
	requestlog.Line
	Text string // exactly, without its line feed
}

// Logs calls take for each line of the log, the oldest first. It returns when there are no more,
// with Follow when ctx is done or the daemon ends. Before, it calls answered with the daemon's note
// on requests that are not in the log, "" if there is none.
func (c *Client) Logs(ctx context.Context, q LogsQuery, answered func(note string), take func(LogLine) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := time.AfterFunc(getTimeout, func() { cancel(errSilent) })
	defer alive.Stop()
	response, err := c.open(ctx, http.MethodGet, q.path(), nil)
	if err != nil {
		return explained(ctx, err)
	}
	defer response.Body.Close()
	answered(printable.Line(response.Header.Get(requestlog.NoteHeader)))
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, longestLine)
	for alive.Reset(silence); lines.Scan(); alive.Reset(silence) {
		if len(lines.Bytes()) == 0 {
			continue
		}
		alive.Stop() // take may wait for a reader
		line := LogLine{Text: lines.Text()}
		if err := json.Unmarshal(lines.Bytes(), &line.Line); err != nil {
			return fmt.Errorf("/v1/logs: not a line of lbctl's log: %w", err)
		}
		if c.printable {
			printable.Fields(&line.Line)
		}
		if err := take(line); err != nil {
			return err
		}
	}
	return explained(ctx, lines.Err())
}

var errSilent = errors.New("the daemon does not answer in time")

// explained returns the cause of an error that ended a stream.
func explained(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case errors.Is(cause, errSilent):
		return errSilent
	case cause != nil:
		return cause
	}
	return err
}
