package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
)

type resumeOptions struct {
	Out    io.Writer
	Client func() (*admin.Client, error)

	Output string
}

func newResumeCmd(f *factory) *cobra.Command {
	opts := &resumeOptions{Out: f.out}
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Follow Consul again after a rollback",
		Long: `Follow Consul again after a rollback: lbctl applies the current state of Consul at
once. 'lbctl status --wait 60s' waits until nginx serves it.`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	opts.Client = daemonFlags(flags, &opts.Output).client
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runResume(cmd.Context(), opts) }
	return cmd
}

func runResume(ctx context.Context, opts *resumeOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	resumed, err := client.Resume(ctx)
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, resumed, func() error {
		if resumed.Frozen == 0 {
			_, err := fmt.Fprintln(opts.Out, "No generation was pinned: lbctl follows Consul.")
			return err
		}
		_, err := fmt.Fprintf(opts.Out, "lbctl follows Consul again; generation %d is no longer pinned.\n", resumed.Frozen)
		return err
	})
}
