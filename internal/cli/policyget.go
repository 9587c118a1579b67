package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
	"lbctl/internal/spelling"
)

type policyGetOptions struct {
	Out      io.Writer
	Terminal Terminal
	Store    *storeAddress
	Client   func() (*admin.Client, error)

	Output    string
	Name      string // "": all
	Effective bool
	All       bool // with Effective: the built-in values too
	Path      string
}

func newPolicyGetCmd(f *factory) *cobra.Command {
	opts := &policyGetOptions{Out: f.out, Terminal: f.terminal}
	cmd := &cobra.Command{
		Use:   "get [NAME]",
		Short: "Print a policy, or what holds for a service",
		Long: `Print a policy as a document in YAML, as 'lbctl policy apply' reads it. Without NAME,
print all of them, one after the other.

--effective asks the daemon what holds for a service, and where each value comes from: the
policy "default", what the service says of itself, and its own policy. --all shows the
built-in values too.`,
		Example: `  lbctl policy get cart
  lbctl policy get > policies.yaml
  lbctl policy get --effective cart
  lbctl policy get --effective cart --path /shop.Cart/Watch`,
		Args: atMost(1, "the name of one policy"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.Flags().BoolVar(&opts.Effective, "effective", false, "ask the daemon what holds for the service, and why")
	cmd.Flags().BoolVar(&opts.All, "all", false, "with --effective: show the built-in values too")
	define(flags, &opts.Path, "path", "", "PATH", "with --effective: for the requests of this path", "", parsePath)
	opts.Store = storeFlags(flags)
	flags.completeWith("path", completePaths(opts.Store))
	opts.Client = daemonFlags(flags, &opts.Output).client
	cmd.ValidArgsFunction = completeNewPolicies(opts.Store, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if len(args) > 0 {
			if opts.Name, err = policyName(cmd, args[0]); err != nil {
				return err
			}
		}
		switch service := policyfile.Service(opts.Name); {
		case opts.Effective && service == "":
			return &usageError{command: cmd.CommandPath(), mistakes: []error{errors.New("--effective is for one service: want its name")}}
		case opts.Effective:
			return runPolicyEffective(cmd.Context(), opts, service)
		case opts.All:
			return &usageError{command: cmd.CommandPath(), mistakes: []error{errors.New("--all wants --effective: a document has no built-in values")}}
		case opts.Path != "":
			return &usageError{command: cmd.CommandPath(), mistakes: []error{errors.New("--path wants --effective: a document has all its paths")}}
		}
		return runPolicyGet(cmd.Context(), opts)
	}
	return cmd
}

func runPolicyGet(ctx context.Context, opts *policyGetOptions) error {
	store, err := opts.Store.open()
	if err != nil {
		return err
	}
	if opts.Name != "" {
		document, said, err := readPolicy(ctx, store, opts.Name)
		if err != nil {
			return err
		}
		if !document.Exists() {
			return noPolicy(ctx, store, opts.Name)
		}
		shown := policyfile.Document{Name: opts.Name, Policy: said}
		return printResult(opts.Out, opts.Output, shown, func() error { return writePolicies(opts.Out, shown) })
	}
	stored, err := store.List(ctx, "")
	if err != nil {
		return err
	}
	all := []policyfile.Document{}
	var errs []error
	for _, d := range stored {
		if name, err := policyfile.Name(d.Name); err != nil || name != d.Name {
			continue // not a policy
		}
		said, err := policy.ParseDocument(d.Value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s can't be read and is left out:\n%w", store.Key(d.Name), err))
			continue
		}
		all = append(all, policyfile.Document{Name: d.Name, Policy: said})
	}
	err = printResult(opts.Out, opts.Output, all, func() error { return writePolicies(opts.Out, all...) })
	return errors.Join(append([]error{err}, errs...)...)
}

// writePolicies prints policies as YAML for people, with "---" between them.
func writePolicies(w io.Writer, all ...policyfile.Document) error {
	for n, d := range all {
		var text bytes.Buffer
		if n > 0 {
			text.WriteString("---\n")
		}
		if err := writeYAML(&text, d); err != nil {
			return err
		}
		if _, err := io.WriteString(w, printable.Lines(text.String())); err != nil {
			return err
		}
	}
	return nil
}

// noPolicy is the error for a policy that is not there.
func noPolicy(ctx context.Context, store *kv.Store, name string) error {
	documents, err := store.List(ctx, "")
	if err != nil {
		return err
	}
	var names []string
	for _, d := range documents {
		names = append(names, d.Name)
	}
	hint := fmt.Sprintf("; 'lbctl policy set %s FIELD=VALUE' makes it", name)
	if meant := spelling.Nearest(name, names); meant != "" {
		hint = fmt.Sprintf(", did you mean %q?", meant)
	}
	return fmt.Errorf("there is no policy %q%s", name, hint)
}

func runPolicyEffective(ctx context.Context, opts *policyGetOptions, service string) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	effective, err := client.Policy(ctx, service, opts.Path)
	if errors.Is(err, admin.ErrUnreachable) {
		return fmt.Errorf("only the daemon knows what holds for a service: %w", err)
	}
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, effective, func() error { return writeEffective(opts, effective) })
}

func writeEffective(opts *policyGetOptions, effective admin.ServicePolicy) error {
	t := &table{header: []string{"FIELD", "VALUE", "FROM"}, shrinkFirst: 1}
	rows := 0
	for _, f := range effective.Fields {
		source, of := cell{f.Source, plain}, plain
		if f.Source == policy.SourceBuiltIn {
			if !opts.All {
				continue
			}
			source.style, of = dim, dim
		}
		rows++
		t.add(cell{f.Name, cyan}, cell{orDash(f.Value), of}, source)
	}
	rest := "\nAll other fields are as built in; --all shows them."
	if rows == 0 {
		rest = "All fields are as built in; --all shows them."
	} else if err := t.write(opts.Out, opts.Terminal); err != nil {
		return err
	}
	if !opts.All {
		if _, err := fmt.Fprintln(opts.Out, rest); err != nil {
			return err
		}
	}
	text := ""
	if len(effective.Paths) > 0 && effective.Path == "" {
		text += "\nThese paths have settings of their own, which --path shows:\n"
		for _, path := range effective.Paths {
			text += "  " + string(path) + "\n"
		}
	}
	if len(effective.Problems) > 0 {
		text += "\n" + opts.Terminal.paint(bold, "Problems") + "\n"
		for _, problem := range effective.Problems {
			text += "  " + opts.Terminal.wrap(problem, 2) + "\n"
		}
	}
	_, err := io.WriteString(opts.Out, text)
	return err
}
