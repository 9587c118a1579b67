package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/requestlog"
)

const logsHelp = `Show the last requests, and what happened to nginx's configuration meanwhile.

lbctl keeps the last requests in memory (see 'lbctl run --request-log-memory'). A request that
was tried several times has the tries, and one that nginx answered itself has the reason.
With a flag that only requests can match there are no events.`

const logsExample = `  lbctl logs
  lbctl logs -f --service cart
  lbctl logs --status 5xx --since 10m --limit 1000
  lbctl logs -f --grpc-status error --slower-than 200ms
  lbctl logs --trace 4bf92f3577b34da6a3ce929d0e0e4736
  lbctl logs -o json | jq -r 'select(.tries | length > 1) | .path'`

type logsOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Now      func() time.Time
	Client   func() (*admin.Client, error)

	Output   string
	Query    admin.LogsQuery
	Events   bool // only events
	Requests bool // only requests
}

func newLogsCmd(f *factory) *cobra.Command {
	opts := &logsOptions{Out: f.out, Err: f.err, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:     "logs",
		Short:   "Show the last requests, and follow them",
		Long:    logsHelp,
		Example: logsExample,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.Flags().BoolVarP(&opts.Query.Follow, "follow", "f", false, "go on with each line that comes, until Ctrl-C")
	define(flags, &opts.Query.Limit, "limit", "", "N", "show at most the last N lines before that", 50, parseNumber(0, requestlog.MaxLimit))
	filterFlags(flags, opts)
	cmd.Flags().BoolVar(&opts.Requests, "requests", false, "only requests")
	cmd.Flags().BoolVar(&opts.Events, "events", false, "only events")
	at := daemonFlags(flags, &opts.Output)
	opts.Client = at.client
	completeFilters(flags, at, opts)
	flags.check(func(mistake func(string, ...any)) {
		if opts.Events && opts.Requests {
			mistake("--requests and --events: want only one of them; without them there are both")
		}
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runLogs(cmd.Context(), opts) }
	return cmd
}

// filterFlags defines the flags that say which lines are wanted.
func filterFlags(flags *flags, opts *logsOptions) {
	filter := &opts.Query.Filter
	define(flags, &filter.Service, "service", "", "NAME", "only of this service", "", parseText)
	define(flags, &filter.Instance, "instance", "", "INSTANCE", "only those that an instance was tried for: its ID in Consul, or ADDRESS:PORT", "", parseText)
	define(flags, &filter.Route, "route", "", "ROUTE", "only of this route, as 'lbctl services' shows it", "", parseText)
	define(flags, &filter.Statuses, "status", "", "STATUSES", "only these HTTP statuses: 404, 5xx, 500-503, separated by commas", nil, requestlog.ParseStatuses)
	define(flags, &filter.GRPCStatuses, "grpc-status", "", "NAMES", "only these gRPC statuses, separated by commas; error for all that are a server's errors", nil, requestlog.ParseGRPCStatuses)
	define(flags, &filter.SlowerThan, "slower-than", "", "DURATION", "only requests that took longer", 0, parseDuration(time.Millisecond))
	define(flags, &filter.Trace, "trace", "", "ID", "only of this trace; the beginning of its ID is enough", "", parseText)
	define(flags, &filter.RequestID, "request-id", "", "ID", "only requests with this ID; its beginning is enough", "", parseText)
	define(flags, &filter.Client, "client", "", "NETWORK", "only from this address or network", filter.Client, requestlog.ParseClient)
	define(flags, &filter.Since, "since", "", "TIME", "only lines since then: 10m ago, or a time such as 2026-11-27T10:00:00Z", filter.Since, parseSince(opts.Now))
}

// parseSince parses a time, or how long ago it was.
func parseSince(now func() time.Time) func(string) (time.Time, error) {
	return func(given string) (time.Time, error) {
		if d, err := time.ParseDuration(given); err == nil && d >= 0 {
			return now().Add(-d), nil
		}
		at, err := time.Parse(time.RFC3339Nano, given)
		if err != nil {
			return time.Time{}, fmt.Errorf("want a duration such as 10m, or a time such as 2026-11-27T10:00:00Z")
		}
		return at, nil
	}
}

func runLogs(ctx context.Context, opts *logsOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	switch {
	case opts.Events:
		opts.Query.Type = requestlog.TypeEvent
	case opts.Requests:
		opts.Query.Type = requestlog.TypeRequest
	}
	if opts.Query.Follow {
		return opts.follow(ctx, client)
	}
	return client.Logs(ctx, opts.Query, opts.note, opts.print)
}

// note shows the daemon's note on requests that are not in the log.
func (opts *logsOptions) note(text string) {
	if text != "" && !opts.Events {
		fmt.Fprintln(opts.Err, "lbctl:", text)
	}
}

// reconnect is the pause between attempts to reach a daemon that has ended.
const reconnect = time.Second

// follow shows lines until it is interrupted, also over a restart of the daemon.
func (opts *logsOptions) follow(ctx context.Context, client *admin.Client) error {
	var (
		query    = opts.Query
		last     = opts.Now() // of the lines that were shown
		there    bool         // the daemon answers
		lost     bool         // it has answered and ended since
		writeErr error
	)
	answered := func(note string) {
		if lost {
			fmt.Fprintln(opts.Err, "lbctl: the daemon answers again")
		} else {
			opts.note(note)
		}
		there = true
	}
	take := func(line admin.LogLine) error {
		if line.Time.After(last) {
			last = line.Time
		}
		writeErr = opts.print(line)
		return writeErr
	}
	for {
		err := client.Logs(ctx, query, answered, take)
		var refused *admin.Error
		switch {
		case ctx.Err() != nil:
			return nil // the user has ended it
		case writeErr != nil:
			return writeErr
		case !there && !lost, errors.As(err, &refused):
			return err
		case there:
			fmt.Fprintln(opts.Err, "lbctl: the daemon has ended the log; until it answers again, lines may be missing")
			there, lost = false, true
		}
		// A daemon that starts anew has only what is new.
		query.Limit, query.Since = requestlog.MaxLimit, last.Add(1)
		if sleep(ctx, reconnect) != nil {
			return nil
		}
	}
}

// print prints a line in the format of -o: for people, or as one of several documents.
func (opts *logsOptions) print(line admin.LogLine) error {
	text := line.Text
	switch opts.Output {
	case outputText:
		text = logText(opts.Terminal, opts.Now(), line.Line)
	case outputYAML:
		text = ofStream(opts.Output, line.Line)
	}
	_, err := fmt.Fprintln(opts.Out, text)
	return err
}
