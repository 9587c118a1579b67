package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"lbctl/internal/policy/reference"
)

type policySchemaOptions struct{ Out io.Writer }

func newPolicySchemaCmd(f *factory) *cobra.Command {
	opts := &policySchemaOptions{Out: f.out}
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print a JSON schema of policies, for editors",
		Long: `Print a JSON schema of the files that 'lbctl policy apply' reads. Editors complete and
check files with it.`,
		Example: `  lbctl policy schema > policy.schema.json`,
		Args:    atMost(0, ""),
	}
	newFlags(f, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runPolicySchema(cmd.Context(), opts) }
	return cmd
}

func runPolicySchema(_ context.Context, opts *policySchemaOptions) error {
	_, err := opts.Out.Write(reference.Schema())
	return err
}
