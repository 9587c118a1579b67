package democlient

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lbctl/internal/demotrace"
	"lbctl/protos"
)

var errTimeout = errors.New("no answer in time")

// conversation exchanges messages over one stream, and opens another one if that breaks. One
// goroutine at a time may use it.
type conversation struct {
	client  protos.PingClient
	timeout time.Duration // for each answer, and for the end of the stream
	rec     *recorder

	stream  protos.Ping_StreamClient // nil if there is none
	ctx     context.Context          // the stream's
	cancel  context.CancelCauseFunc
	opened  time.Time
	answers int // over this stream
	id      *demotrace.ID
}

// exchange sends a message and waits for its answer. After an error there is no stream.
func (c *conversation) exchange() (string, error) {
	if c.stream == nil {
		c.id, c.answers = &demotrace.ID{}, 0
		c.ctx, c.cancel = context.WithCancelCause(demotrace.WithID(context.Background(), c.id))
	}
	var answer *protos.PingMessage
	err := c.inTime(func() (err error) {
		if c.stream == nil {
			if c.stream, err = c.client.Stream(c.ctx); err != nil {
				return err
			}
			c.opened = time.Now()
			c.rec.streamOpened()
		}
		// io.EOF means that the stream has ended; Recv returns the reason.
		if err := c.stream.Send(request()); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		answer, err = c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unknown, "the server ended the stream")
		}
		return err
	})
	if err != nil {
		if c.answers == 0 {
			c.trace(err)
		}
		c.drop(err)
		return "", err
	}
	if c.answers == 0 {
		c.trace(nil)
	}
	c.answers++
	return answer.GetGreeting(), nil
}

// trace prints the id of the stream's trace, after its first answer or failure.
func (c *conversation) trace(err error) {
	var said metadata.MD
	switch {
	case c.stream == nil:
	case err == nil:
		said, _ = c.stream.Header() // is there, since an answer is
	default:
		said = c.stream.Trailer()
	}
	c.rec.trace(c.id.Or(said), 0, err)
}

// close ends the stream, if there is one. If it ends with an error, it counts as broken.
func (c *conversation) close() {
	if c.stream == nil {
		return
	}
	c.drop(c.inTime(func() error {
		if err := c.stream.CloseSend(); err != nil {
			return err
		}
		switch _, err := c.stream.Recv(); {
		case errors.Is(err, io.EOF):
			return nil
		case err == nil:
			return status.Error(codes.Unknown, "the server sent an answer without a message")
		default:
			return err
		}
	}))
}

// inTime calls f, and returns DEADLINE_EXCEEDED if f takes longer than the timeout. A
// deadline of the stream's context would apply to the whole stream.
func (c *conversation) inTime(f func() error) error {
	timer := time.AfterFunc(c.timeout, func() { c.cancel(errTimeout) })
	err := f()
	if !timer.Stop() {
		return status.Errorf(codes.DeadlineExceeded, "%v: %v", errTimeout, c.timeout)
	}
	return err
}

// drop forgets the stream. With an error, the stream counts as broken.
func (c *conversation) drop(err error) {
	if err != nil && c.stream != nil {
		c.rec.streamBroke(time.Since(c.opened), c.answers, err)
	}
	c.cancel(nil)
	c.stream = nil
}
