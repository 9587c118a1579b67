package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/printable"
)

type policyHistoryOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Now      func() time.Time
	Store    *storeAddress

	Output string
	Name   string
	Diff   bool
}

// A policyEntry is one write of a policy.
type policyEntry struct {
	Number  int       `json:"number"` // of the policy's writes, from 1
	When    time.Time `json:"when"`
	By      string    `json:"by"`
	User    string    `json:"user"` // as the writer's host says
	Token   string    `json:"token_accessor,omitempty"`
	Kind    string    `json:"kind"` // "set", "edit", "apply", "delete", "undo" ...
	Why     string    `json:"why,omitempty"`
	Deleted bool      `json:"deleted,omitempty"` // the write deleted the policy
	// Differences are what the write changed. They are only in a history.
	Differences []policy.Difference `json:"differences,omitempty"`
	// Problem says why Differences are not known.
	Problem string `json:"problem,omitempty"`
}

func entryOf(e kv.Entry) policyEntry {
	return policyEntry{
		Number: e.Number, When: e.When, By: e.Who.String(), User: e.Who.User, Token: e.Who.Accessor,
		Kind: e.Kind, Why: e.Why, Deleted: e.Deleted,
	}
}

func newPolicyHistoryCmd(f *factory) *cobra.Command {
	opts := &policyHistoryOptions{Out: f.out, Err: f.err, Terminal: f.terminal, Now: f.now}
	cmd := &cobra.Command{
		Use:   "history NAME",
		Short: "List who changed a policy, when and why",
		Long: fmt.Sprintf(`List the last %d writes of a policy, the newest first: who made it, when and why. --diff
adds what it changed. A deleted policy keeps its history.`, kv.MaxHistory),
		Example: `  lbctl policy history cart --diff`,
		Args:    exactly(1, "the name of a policy"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.Flags().BoolVar(&opts.Diff, "diff", false, "show what each write changed")
	opts.Store = storeFlags(flags)
	cmd.ValidArgsFunction = completePolicies(opts.Store, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opts.Name, err = policyName(cmd, args[0]); err != nil {
			return err
		}
		return runPolicyHistory(cmd.Context(), opts)
	}
	return cmd
}

func runPolicyHistory(ctx context.Context, opts *policyHistoryOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	now, err := store.Read(ctx, opts.Name)
	if err != nil {
		return err
	}
	entries, err := store.History(ctx, opts.Name)
	if err != nil {
		return err
	}
	writes := []policyEntry{}
	for n, e := range entries {
		after := now
		if n > 0 {
			after = entries[n-1].Before
		}
		write := entryOf(e)
		write.Differences, write.Problem = changedBy(e, after)
		writes = append(writes, write)
	}
	if !forPrograms(opts.Output) {
		printable.Fields(&writes)
	}
	if len(entries) > 0 && changedAfter(entries[0], now) && !opts.Diff && !forPrograms(opts.Output) {
		fmt.Fprintf(opts.Err, "The policy was changed without lbctl after write %d.\n", entries[0].Number)
	}
	return printResult(opts.Out, opts.Output, writes, func() error { return writePolicyHistory(opts, writes) })
}

// changedAfter reports whether a document was changed without lbctl after a write. after is the
// document before the next write.
func changedAfter(e kv.Entry, after kv.Document) bool {
	return after.Exists() == e.Deleted || after.Exists() && after.Index != e.Index
}

// changedBy returns what a write changed. after is the document before the next write.
func changedBy(e kv.Entry, after kv.Document) (differences []policy.Difference, problem string) {
	if changedAfter(e, after) {
		return nil, "what it changed is not known, because the policy was then changed without lbctl"
	}
	before, err := parseStored(e.Before)
	if err != nil {
		return nil, "what it changed is not known, because the policy before can't be read"
	}
	said, err := parseStored(after)
	if err != nil {
		return nil, "what it changed is not known, because what it wrote can't be read"
	}
	return policy.Diff(before, said), ""
}

// parseStored parses a document; one that does not exist says nothing.
func parseStored(d kv.Document) (policy.Document, error) {
	if !d.Exists() {
		return policy.Document{}, nil
	}
	return policy.ParseDocument(d.Value)
}

func writePolicyHistory(opts *policyHistoryOptions, writes []policyEntry) error {
	if len(writes) == 0 {
		_, err := fmt.Fprintf(opts.Out, "The policy %q has no history.\n", opts.Name)
		return err
	}
	if !opts.Diff {
		t := &table{header: []string{"WRITE", "WHEN", "BY", "HOW", "WHY"}, prose: true}
		for _, w := range writes {
			t.add(text(fmt.Sprint(w.Number)), text(ago(w.When, opts.Now())), text(w.By), text(w.Kind), text(w.Why))
		}
		return t.write(opts.Out, opts.Terminal)
	}
	var out strings.Builder
	for _, w := range writes {
		title := fmt.Sprintf("write %d, %s, by %s (%s)", w.Number, ago(w.When, opts.Now()), w.By, w.Kind)
		if w.Why != "" {
			title += ": " + w.Why
		}
		fmt.Fprintf(&out, "%s\n%s", opts.Terminal.paint(bold, title), differencesText(opts.Terminal, w.Differences))
		if w.Problem != "" {
			fmt.Fprintf(&out, "  %s\n", w.Problem)
		}
		if w.Deleted {
			fmt.Fprintf(&out, "  the policy was deleted\n")
		}
	}
	_, err := io.WriteString(opts.Out, out.String())
	return err
}
