package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/history"
)

const historyHelp = `List what happened to nginx's configuration, newest first.`

const historyExample = `  lbctl history
  lbctl history --limit 100
  lbctl history -o json | jq -r '.[] | select(.kind == "rejected") | .reason'`

type historyOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Now      func() time.Time
	Client   func() (*admin.Client, error)

	Output string
	Limit  int
}

func newHistoryCmd(f *factory) *cobra.Command {
	opts := &historyOptions{Out: f.out, Err: f.err, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:     "history",
		Short:   "List what happened, newest first",
		Long:    historyHelp,
		Example: historyExample,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	define(flags, &opts.Limit, "limit", "", "N", "show at most N events", 20, parseNumber(1, 1_000_000))
	opts.Client = daemonFlags(flags, &opts.Output).client
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runHistory(cmd.Context(), opts) }
	return cmd
}

func runHistory(ctx context.Context, opts *historyOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	events, err := client.History(ctx)
	if err != nil {
		return err
	}
	all := len(events)
	events = events[:min(all, opts.Limit)]
	return printResult(opts.Out, opts.Output, events, func() error { return writeHistory(opts, events, all) })
}

// writeHistory prints the newest events of all.
func writeHistory(opts *historyOptions, events []history.Event, all int) error {
	if all == 0 {
		_, err := fmt.Fprintln(opts.Out, "Nothing has happened yet.")
		return err
	}
	t := &table{header: []string{"GENERATION", "WHEN", "WHAT", "TOOK", "CHANGE"}, prose: true}
	for _, event := range events {
		what, style := kindText(event.Kind)
		generation := "-"
		if event.Generation != 0 {
			generation = fmt.Sprint(event.Generation)
		}
		t.add(
			text(generation),
			text(ago(event.Time, opts.Now())),
			cell{what, style},
			text(elapsed(seconds(event.TookSeconds))),
			text(changeText(event)),
		)
	}
	if err := t.write(opts.Out, opts.Terminal); err != nil {
		return err
	}
	if all > len(events) {
		_, err := fmt.Fprintf(opts.Err, "%d more: --limit %d shows all\n", all-len(events), all)
		return err
	}
	return nil
}

// changeText says what changed, and for failures also why. If instances left, it says which, and
// why.
func changeText(event history.Event) string {
	switch left := event.LeftText(); {
	case left != "":
		return fmt.Sprintf("%s (%s)", event.Change, left)
	case (event.Kind == history.Applied || event.Kind == history.Moved) && event.Change != "", event.Reason == "":
		return event.Change
	case event.Change == "":
		return event.Reason
	case event.Kind.NamesServices():
		return fmt.Sprintf("%s (%s)", event.Change, event.Reason)
	default:
		return fmt.Sprintf("%s (%s)", event.Reason, event.Change)
	}
}

// kindText is the name of a kind of event in text output.
func kindText(kind history.Kind) (string, style) {
	switch kind {
	case history.Applied:
		return "applied", green
	case history.Moved:
		return "fetched", green
	case history.Rejected:
		return "refused", red
	case history.RolledBack:
		return "rolled back", red
	case history.NoWayBack:
		return "rollback failed", red
	case history.Failed:
		return "failed", red
	case history.NginxDown:
		return "nginx down", red
	case history.NginxUp:
		return "nginx up", green
	case history.MasterGone:
		return "master gone", red
	case history.MasterBack:
		return "master back", green
	case history.Drift:
		return "drift corrected", yellow
	case history.RolledBackByOperator:
		return "rollback", yellow
	case history.Resumed:
		return "resumed", yellow
	case history.Ejected:
		return "ejected", yellow
	case history.Readmitted:
		return "readmitted", green
	case history.Reread:
		return "read again", plain
	case history.Panic, history.Held, history.Quarantined, history.Stale:
		return string(kind), yellow
	case history.LastKnownGood:
		return "last known good", yellow
	case history.Recovered:
		return "recovered", green
	case history.ConsulDown:
		return "Consul down", red
	case history.ConsulUp:
		return "Consul up", green
	default:
		return string(kind), plain
	}
}
