package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"lbctl/internal/policy"
)

type policyUnsetOptions struct {
	*policyWriter

	Name   string
	Path   string
	Fields []string
}

func newPolicyUnsetCmd(f *factory) *cobra.Command {
	opts := &policyUnsetOptions{}
	cmd := &cobra.Command{
		Use:   "unset NAME FIELD...",
		Short: "Remove fields from a policy",
		Long: `Remove fields from a policy, so that the other layers say what they are. A policy
without fields is deleted.`,
		Example: `  lbctl policy unset cart timeout.read
  lbctl policy unset cart timeout.read --path /shop.Cart/Watch`,
		Args: policyArgs(1, "the name of a policy and fields"),
	}
	flags := newFlags(f, cmd)
	define(flags, &opts.Path, "path", "", "PATH", "remove what is set for this path only", "", parsePath)
	opts.policyWriter = policyWriterFlags(f, flags)
	flags.completeWith("path", completePaths(opts.Store))
	cmd.ValidArgsFunction = completePolicies(opts.Store, completeSet)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opts.Name, err = policyName(cmd, args[0]); err != nil {
			return err
		}
		opts.Fields = args[1:]
		var mistakes []error
		for _, field := range opts.Fields {
			if _, err := policy.Find(field); err != nil {
				mistakes = append(mistakes, err)
			}
		}
		if len(mistakes) > 0 {
			return &usageError{command: cmd.CommandPath(), where: "in the fields", mistakes: mistakes}
		}
		return runPolicyUnset(cmd.Context(), opts)
	}
	return cmd
}

func runPolicyUnset(ctx context.Context, opts *policyUnsetOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	before, old, err := readPolicy(ctx, store, opts.Name)
	if err != nil {
		return err
	}
	said := old
	for _, field := range opts.Fields {
		had, err := said.UnsetAt(opts.Path, field)
		if err != nil {
			return err
		}
		if !had {
			fmt.Fprintln(opts.Err, notSet(opts.Name, field, opts.Path, old))
		}
	}
	return opts.write(ctx, store, "unset", policyEdit{Before: before, Old: old, New: said})
}

// notSet says that a policy does not set a field, and for which paths it does.
func notSet(name, field, path string, said policy.Document) string {
	text := fmt.Sprintf("%s does not set %s", name, field)
	if path != "" {
		text += " for " + path
	}
	for _, v := range said.Values() {
		if v.Field.Name == field && string(v.Path) != path {
			if v.Path == "" {
				return text + ", only for the whole service"
			}
			return fmt.Sprintf("%s, but for the path %s: want --path", text, v.Path)
		}
	}
	return text
}
