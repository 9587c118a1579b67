package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
)

type resumeOptions struct {
	Out    io.Writer
	Client func() (*admin.Client, error)

	Output string
	Wait   waiter
}

func newResumeCmd(f *factory) *cobra.Command {
	opts := &resumeOptions{Out: f.out, Wait: waiter{Err: f.err, Interval: waitInterval}}
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Follow Consul again after a rollback",
		Long: `Follow Consul again after a rollback: lbctl applies the current state of Consul at
once. --wait waits until nginx serves it.`,
		Example: `  lbctl resume --wait 60s`,
		Args:    atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	waitFlag(flags, &opts.Wait.Limit, "nginx serves what Consul says")
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
	err = printResult(opts.Out, opts.Output, resumed, func() error {
		if resumed.Frozen == 0 {
			_, err := fmt.Fprintln(opts.Out, "No generation was pinned: lbctl follows Consul.")
			return err
		}
		_, err := fmt.Fprintf(opts.Out, "lbctl follows Consul again; generation %d is no longer pinned.\n", resumed.Frozen)
		return err
	})
	if err != nil || opts.Wait.Limit == 0 {
		return err
	}
	// For a moment the status may still have the pin.
	_, err = opts.Wait.until(ctx, client, servingConsul, func(status controller.Status) (bool, error) {
		return status.State == controller.Serving, nil
	})
	return err
}
