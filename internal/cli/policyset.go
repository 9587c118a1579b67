package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/policy"
)

type policySetOptions struct {
	*policyWriter

	Name   string
	Path   string
	Values []fieldValue
}

// A fieldValue is a value for a field, as the command line has it.
type fieldValue struct{ field, value string }

func newPolicySetCmd(f *factory) *cobra.Command {
	opts := &policySetOptions{}
	cmd := &cobra.Command{
		Use:   "set NAME FIELD=VALUE...",
		Short: "Set fields of a policy",
		Long: `Set fields of a policy. The policy is made if there is none yet. The value "default"
puts a field back to its built-in value, whatever the policy "default" and the service
say. 'lbctl policy explain' lists the fields.`,
		Example: `  lbctl policy set cart timeout.read=5s -m "the disk is slow today"
  lbctl policy set default timeout.connect=1s timeout.read=10m
  lbctl policy set cart timeout.read=1h --path /shop.Cart/Watch`,
		Args: policyArgs(1, "the name of a policy and FIELD=VALUE"),
	}
	flags := newFlags(f, cmd)
	define(flags, &opts.Path, "path", "", "PATH", "set them for this path only: /api, =/api or /package.Service/Method", "", parsePath)
	opts.policyWriter = policyWriterFlags(f, flags)
	flags.completeWith("path", completePaths(opts.Store))
	cmd.ValidArgsFunction = completeNewPolicies(opts.Store, completeSettings(&opts.Path))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opts.Name, err = policyName(cmd, args[0]); err != nil {
			return err
		}
		if opts.Values, err = fieldValues(cmd, args[1:], opts.Path); err != nil {
			return err
		}
		return runPolicySet(cmd.Context(), opts)
	}
	return cmd
}

func parsePath(given string) (string, error) {
	if _, err := policy.ParsePath(given); err != nil {
		_, want, _ := strings.Cut(err.Error(), ", want ")
		return "", fmt.Errorf("want %s", want)
	}
	return given, nil
}

// fieldValues parses and checks settings, and returns all mistakes in one error.
func fieldValues(cmd *cobra.Command, args []string, path string) ([]fieldValue, error) {
	var values []fieldValue
	var mistakes []error
	var scratch policy.Document
	for _, arg := range args {
		field, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok:
			mistakes = append(mistakes, missingValue(arg))
		case slices.ContainsFunc(values, func(v fieldValue) bool { return v.field == field }):
			mistakes = append(mistakes, fmt.Errorf("%s is there twice", field))
		default:
			values = append(values, fieldValue{field, value})
			if err := scratch.SetAt(path, field, value); err != nil {
				mistakes = append(mistakes, err)
			}
		}
	}
	if len(mistakes) > 0 {
		return nil, &usageError{command: cmd.CommandPath(), where: "in the settings", mistakes: mistakes}
	}
	return values, nil
}

func missingValue(arg string) error {
	f, err := policy.Find(arg)
	if err != nil {
		return fmt.Errorf(`%q, want FIELD=VALUE, such as timeout.read=5s`, arg)
	}
	return fmt.Errorf("%s has no value, want %s=VALUE with %s", f.Name, f.Name, f.Want)
}

func runPolicySet(ctx context.Context, opts *policySetOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	before, old, err := readPolicy(ctx, store, opts.Name)
	if err != nil {
		return err
	}
	said := old
	for _, v := range opts.Values {
		if err := said.SetAt(opts.Path, v.field, v.value); err != nil {
			return err
		}
	}
	return opts.write(ctx, store, "set", policyEdit{Before: before, Old: old, New: said})
}
