package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/policy"
	"lbctl/internal/policy/reference"
)

type policyExplainOptions struct {
	Out      io.Writer
	Terminal Terminal

	Output string
	Fields []policy.Field
	Long   bool // all facts
}

// An explainedField is a field in the document of "policy explain".
type explainedField struct {
	Name        string            `json:"field"`
	Description string            `json:"description"`
	Values      string            `json:"values"`
	Unit        string            `json:"unit,omitempty"`
	Default     map[string]string `json:"default"` // by family
	Example     string            `json:"example"`
	Families    []string          `json:"families"`
	MetadataKey string            `json:"metadata_key,omitempty"` // only the operator can set it without one
	PerPath     bool              `json:"per_path"`
	Nginx       string            `json:"nginx"` // the versions that can apply it
}

func newPolicyExplainCmd(f *factory) *cobra.Command {
	opts := &policyExplainOptions{Out: f.out, Terminal: f.terminal}
	cmd := &cobra.Command{
		Use:   "explain [FIELD]",
		Short: "Document the fields of policies",
		Long: `Document the fields of policies: their values, default, unit and so on. Without FIELD,
list all of them. The beginning of a name explains a group of fields.`,
		Example: `  lbctl policy explain
  lbctl policy explain timeout.read
  lbctl policy explain timeout`,
		Args: atMost(1, "one field, or the beginning of a name"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	cmd.ValidArgsFunction = completeFields
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		opts.Fields = policy.Fields()
		if len(args) > 0 {
			opts.Long = true
			if opts.Fields, err = reference.Find(args[0]); err != nil {
				return &usageError{command: cmd.CommandPath(), mistakes: []error{err}}
			}
		}
		return runPolicyExplain(cmd.Context(), opts)
	}
	return cmd
}

// completeFields completes the name of a field.
func completeFields(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	if len(args) == 0 {
		for _, f := range policy.Fields() {
			names = append(names, cobra.CompletionWithDesc(f.Name, f.Want))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func runPolicyExplain(_ context.Context, opts *policyExplainOptions) error {
	explained := []explainedField{}
	for _, f := range opts.Fields {
		defaults := f.Default
		if defaults == nil {
			defaults = map[string]string{}
		}
		explained = append(explained, explainedField{
			Name: f.Name, Description: f.Doc, Values: f.Want, Unit: f.Unit, Default: defaults, Example: reference.Example(f),
			Families: f.Families, MetadataKey: f.Key(), PerPath: f.PerPath,
			Nginx: reference.Since(f),
		})
	}
	return printResult(opts.Out, opts.Output, explained, func() error {
		if opts.Long {
			return writeFields(opts)
		}
		return writeFieldTable(opts)
	})
}

func writeFieldTable(opts *policyExplainOptions) error {
	t := &table{header: []string{"FIELD", "DEFAULT", "VALUES"}, prose: true}
	for _, f := range opts.Fields {
		t.add(cell{f.Name, cyan}, text(cut(reference.Default(f), 40)), text(f.Want))
	}
	return t.write(opts.Out, opts.Terminal)
}

func writeFields(opts *policyExplainOptions) error {
	var out strings.Builder
	for n, f := range opts.Fields {
		if n > 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%s\n  %s\n\n", opts.Terminal.paint(bold, f.Name), opts.Terminal.wrap(f.Doc, 2))
		for _, fact := range reference.Facts(f) {
			const width = 8
			fmt.Fprintf(&out, "  %-*s  %s\n", width, fact.Name, opts.Terminal.wrap(fact.Text, 2+width+2))
		}
	}
	_, err := io.WriteString(opts.Out, out.String())
	return err
}
