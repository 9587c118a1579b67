package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
)

const diffHelp = `Show what changed in nginx's configuration from one generation to another, as a
unified diff for patch(1).

Without arguments, diff compares the previous generation with the current one. With
one argument it compares that generation with the current one.`

type diffOptions struct {
	Out, Err io.Writer
	Terminal Terminal
	Client   func() (*admin.Client, error)

	Output   string
	From, To int // 0 in From: the generation before To; 0 in To: the current one
}

func newDiffCmd(f *factory) *cobra.Command {
	opts := &diffOptions{Out: f.out, Err: f.err, Terminal: f.terminal}
	cmd := &cobra.Command{
		Use:   "diff [FROM] [TO]",
		Short: "Show what changed between two generations",
		Long:  diffHelp,
		Example: `  lbctl diff
  lbctl diff 41
  lbctl diff 38 41`,
		Args: generationArgs(2, "two generations"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	at := daemonFlags(flags, &opts.Output)
	opts.Client = at.client
	cmd.ValidArgsFunction = completeGenerations(f, at, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for i, arg := range args {
			*[]*int{&opts.From, &opts.To}[i], _ = strconv.Atoi(arg) // generationArgs has checked it
		}
		return runDiff(cmd.Context(), opts)
	}
	return cmd
}

// generationArgs checks that a command gets at most n generations.
func generationArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := atMost(n, what)(cmd, args); err != nil {
			return err
		}
		var mistakes []error
		for _, arg := range args {
			if number, err := strconv.Atoi(arg); err != nil || number < 1 {
				mistakes = append(mistakes, fmt.Errorf("generation %q: want a number, such as 42; 'lbctl history' lists them", arg))
			}
		}
		if len(mistakes) > 0 {
			return &usageError{command: cmd.CommandPath(), mistakes: mistakes}
		}
		return nil
	}
}

func runDiff(ctx context.Context, opts *diffOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	diff, err := client.Diff(ctx, opts.From, opts.To)
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, diff, func() error { return writeDiff(opts, diff) })
}

func writeDiff(opts *diffOptions, diff admin.Diff) error {
	if len(diff.Files) == 0 {
		_, err := fmt.Fprintf(opts.Err, "generations %d and %d are the same\n", diff.From, diff.To)
		return err
	}
	for _, file := range diff.Files {
		if _, err := io.WriteString(opts.Out, paintDiff(opts.Terminal, file.Diff)); err != nil {
			return err
		}
	}
	return nil
}

func paintDiff(terminal Terminal, diff string) string {
	if !terminal.Colour {
		return diff
	}
	lines := strings.Split(strings.TrimSuffix(diff, "\n"), "\n")
	for i, line := range lines {
		switch {
		case i < 2:
			lines[i] = terminal.paint(bold, line)
		case strings.HasPrefix(line, "@@"):
			lines[i] = terminal.paint(cyan, line)
		case strings.HasPrefix(line, "+"):
			lines[i] = terminal.paint(green, line)
		case strings.HasPrefix(line, "-"):
			lines[i] = terminal.paint(red, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
