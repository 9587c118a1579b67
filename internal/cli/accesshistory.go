package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/kv"
	"lbctl/internal/printable"
)

type accessHistoryOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Now      func() time.Time
	Store    *storeAddress

	Output string
	Limit  int
}

func newAccessHistoryCmd(f *factory) *cobra.Command {
	opts := &accessHistoryOptions{Out: f.out, Err: f.err, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List who denied and allowed networks, and created and revoked keys, when and why",
		Long: fmt.Sprintf(`List the last %d commands that changed rules about networks or keys, the newest first: who
gave them, when and why. Of a command with many networks it has the first %d.`, kv.MaxJournal, maxJournalRules),
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	define(flags, &opts.Limit, "limit", "", "N", "show at most N commands", 20, parseNumber(1, 1_000_000))
	opts.Store = storeFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runAccessHistory(cmd.Context(), opts) }
	return cmd
}

// accessEntry is a command in the document of access history.
type accessEntry struct {
	When    time.Time `json:"when"`
	By      string    `json:"by"`
	User    string    `json:"user"` // as the writer's host says
	Token   string    `json:"token_accessor,omitempty"`
	Command string    `json:"command"` // "deny", "allow", "allow --only", "key create" or "key revoke"
	Why     string    `json:"why,omitempty"`
	accessCommand
}

func runAccessHistory(ctx context.Context, opts *accessHistoryOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	records, err := store.Journal(ctx, accessJournal)
	if err != nil {
		return err
	}
	entries := []accessEntry{}
	for _, r := range records[:min(len(records), opts.Limit)] {
		e := accessEntry{When: r.When, By: r.Who.String(), User: r.Who.User, Token: r.Who.Accessor, Command: r.Kind, Why: r.Why}
		if err := kv.Decode(r.What, &e.accessCommand); err != nil {
			return fmt.Errorf("the record of %s by %s: %w", r.When.Format(time.RFC3339), r.Who, err)
		}
		entries = append(entries, e)
	}
	if !forPrograms(opts.Output) {
		printable.Fields(&entries)
	}
	return printResult(opts.Out, opts.Output, entries, func() error { return writeAccessHistory(opts, entries, len(records)) })
}

func writeAccessHistory(opts *accessHistoryOptions, entries []accessEntry, all int) error {
	if all == 0 {
		_, err := fmt.Fprintln(opts.Out, "No command has changed rules or keys yet.")
		return err
	}
	t := &table{header: []string{"WHEN", "BY", "COMMAND", "WHAT"}, prose: true}
	for _, e := range entries {
		what := e.text(opts.Now())
		if e.Why != "" {
			what += ": " + e.Why
		}
		t.add(text(ago(e.When, opts.Now())), text(e.By), text(e.Command), text(what))
	}
	if err := t.write(opts.Out, opts.Terminal); err != nil {
		return err
	}
	if all > len(entries) {
		_, err := fmt.Fprintf(opts.Err, "%d more: --limit %d shows all\n", all-len(entries), all)
		return err
	}
	return nil
}

// text says what the command did.
func (e accessEntry) text(now time.Time) string {
	if e.Key != nil {
		if e.Command == "key revoke" {
			return "key " + e.Key.Name + " is revoked"
		}
		return fmt.Sprintf("key %s is good for %s%s", e.Key.Name, forServices(e.Key.Services), untilText(e.Key.Until, now))
	}
	const most = 4 // rules that a line names
	var parts []string
	for _, r := range e.Rules[:min(len(e.Rules), most)] {
		shown := shownRule{Network: r.Network, Access: r.Access, Service: r.Service, Until: r.Until}
		if r.Removed {
			parts = append(parts, fmt.Sprintf("%s is no longer %s%s", r.Network, r.Access, shown.forWhom()))
		} else {
			parts = append(parts, fmt.Sprintf("%s is %s%s", r.Network, r.Access, shown.rest(now)))
		}
	}
	if more := e.Added + e.Removed - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}
