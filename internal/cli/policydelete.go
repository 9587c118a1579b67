package cli

import (
	"context"

	"github.com/spf13/cobra"

	"lbctl/internal/policy"
)

type policyDeleteOptions struct {
	*policyWriter

	Name string
}

func newPolicyDeleteCmd(f *factory) *cobra.Command {
	opts := &policyDeleteOptions{}
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a policy",
		Long: `Delete a policy, also one that can't be read. Its history stays, so that
'lbctl policy undo' brings it back.`,
		Example: `  lbctl policy delete cart -m "the service is gone"`,
		Args:    exactly(1, "the name of a policy"),
	}
	flags := newFlags(f, cmd)
	opts.policyWriter = policyWriterFlags(f, flags)
	cmd.ValidArgsFunction = completePolicies(opts.Store, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opts.Name, err = policyName(cmd, args[0]); err != nil {
			return err
		}
		return runPolicyDelete(cmd.Context(), opts)
	}
	return cmd
}

func runPolicyDelete(ctx context.Context, opts *policyDeleteOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	before, err := store.Read(ctx, opts.Name)
	if err != nil {
		return err
	}
	if !before.Exists() {
		return noPolicy(ctx, store, opts.Name)
	}
	old, _ := policy.ParseDocument(before.Value) // what can't be read can be deleted
	return opts.write(ctx, store, "delete", policyEdit{Before: before, Old: old})
}
