package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/printable"
)

// waitInterval is the time between two queries of a command that waits.
const waitInterval = 250 * time.Millisecond

// waitFlag defines --wait. what completes "block until ...".
func waitFlag(flags *flags, into *time.Duration, what string) {
	define(flags, into, "wait", "", "DURATION", "block until "+what+", at most for this time", 0, parseDuration(time.Millisecond))
}

// servingConsul is the condition of the state serving.
const servingConsul = "nginx serves what Consul says"

// A waiter waits until the daemon's status is what a command wants.
type waiter struct {
	Err      io.Writer     // gets what it waits for, and each change of the summary
	Limit    time.Duration // the longest wait; 0: don't wait
	Interval time.Duration // between two queries
}

// until queries the daemon until done returns true or an error, and returns the last status.
// what is the condition in words: "nginx serves what Consul says". It also waits for a daemon
// that does not answer yet. It queries the daemon at least once, however short the limit; after
// the limit its error is a problem found, or that of a daemon that does not answer.
func (w waiter) until(ctx context.Context, client *admin.Client, what string, done func(controller.Status) (bool, error)) (controller.Status, error) {
	limited, cancel := context.WithTimeout(ctx, w.Limit)
	defer cancel()
	said := ""
	say := func(line string) {
		if line = printable.Line(line); line != said {
			fmt.Fprintln(w.Err, "  "+line)
			said = line
		}
	}
	for first := true; ; first = false {
		status, err := queryStatus(ctx, limited, client)
		missing := status.Summary
		if err == nil {
			ok, stop := done(status)
			if ok && !first {
				say(status.Summary)
			}
			if ok || stop != nil {
				return status, stop
			}
		} else {
			missing = err.Error()
		}
		if ctx.Err() != nil {
			return status, ctx.Err()
		}
		if first {
			fmt.Fprintf(w.Err, "waiting until %s, at most %s\n", what, shortDuration(w.Limit))
		}
		say(missing)
		if sleep(limited, w.Interval) == nil {
			continue
		}
		switch {
		case ctx.Err() != nil:
			return status, ctx.Err()
		case err != nil:
			return status, fmt.Errorf("waited %s: %w", shortDuration(w.Limit), err)
		default:
			return status, problemFound("waited %s until %s, and gave up: %s", shortDuration(w.Limit), what, missing)
		}
	}
}

// queryStatus gets the status. Its deadline is that of limited, but at least a second
// away.
func queryStatus(ctx, limited context.Context, client *admin.Client) (controller.Status, error) {
	deadline, _ := limited.Deadline() // it has one
	if least := time.Now().Add(time.Second); deadline.Before(least) {
		deadline = least
	}
	asking, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return client.Status(asking)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
