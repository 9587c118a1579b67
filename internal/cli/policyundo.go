package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"lbctl/internal/kv"
	"lbctl/internal/printable"
)

type policyUndoOptions struct {
	*policyWriter

	Name   string
	Number int // of the write; 0: the last
}

func newPolicyUndoCmd(f *factory) *cobra.Command {
	opts := &policyUndoOptions{}
	cmd := &cobra.Command{
		Use:   "undo NAME [WRITE]",
		Short: "Take back the last write of a policy",
		Long: `Take back the last write of a policy: it becomes what it was before. With WRITE, a
number of 'lbctl policy history', take back that write and all after it. An undo is a
write too, so another undo takes it back.`,
		Example: `  lbctl policy undo cart -m "it did not help"
  lbctl policy undo cart 3 --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 || len(args) == 2 {
				return nil
			}
			return exactly(1, "the name of a policy and at most one number of a write")(cmd, args)
		},
	}
	flags := newFlags(f, cmd)
	opts.policyWriter = policyWriterFlags(f, flags)
	cmd.ValidArgsFunction = completePolicies(opts.Store, completeWrites)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opts.Name, err = policyName(cmd, args[0]); err != nil {
			return err
		}
		if len(args) > 1 {
			if opts.Number, err = strconv.Atoi(args[1]); err != nil || opts.Number < 1 {
				return &usageError{command: cmd.CommandPath(), mistakes: []error{fmt.Errorf("write %q: want a number of 'lbctl policy history %s'", args[1], opts.Name)}}
			}
		}
		return runPolicyUndo(cmd.Context(), opts)
	}
	return cmd
}

func runPolicyUndo(ctx context.Context, opts *policyUndoOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	plan, err := store.PlanUndo(ctx, opts.Name, opts.Number)
	if errors.Is(err, kv.ErrNoHistory) {
		return fmt.Errorf("there is nothing to undo: the policy %q has no history", opts.Name)
	}
	if err != nil {
		return err
	}
	// What can't be read is undone too.
	old, _ := parseStored(plan.Now)
	said, broken := parseStored(plan.Entry.Before)
	if broken != nil {
		fmt.Fprintln(opts.Err, printable.Lines(fmt.Sprintf("warning: the policy %q was written without lbctl then, and can't be read:\n%s", opts.Name, broken)))
	}
	if !forPrograms(opts.Output) {
		fmt.Fprintln(opts.Err, printable.Lines(takenBack(plan)))
	}
	edits := []policyEdit{{Before: plan.Now, Old: old, New: said, Broken: broken != nil}}
	return opts.do(ctx, store, edits, func() error { return explainConflicts(store.Undo(ctx, plan, opts.Message)) })
}

// takenBack says which writes an undo takes back, one a line.
func takenBack(plan kv.UndoPlan) string {
	if len(plan.Later) == 0 {
		return fmt.Sprintf("undo of write %d, %s", plan.Entry.Number, plan.Entry.By())
	}
	text := fmt.Sprintf("undo of %d writes, %d to %d:", len(plan.Later)+1, plan.Entry.Number, plan.Later[0].Number)
	for _, e := range append(slices.Clone(plan.Later), plan.Entry) {
		text += fmt.Sprintf("\n  write %d, %s", e.Number, e.By())
	}
	return text
}
