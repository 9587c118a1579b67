package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
)

type acceptOptions struct {
	Out    io.Writer
	Client func() (*admin.Client, error)

	Output string
}

func newAcceptCmd(f *factory) *cobra.Command {
	opts := &acceptOptions{Out: f.out}
	cmd := &cobra.Command{
		Use:   "accept",
		Short: "Remove held instances from rotation now",
		Long: `Remove held instances from rotation now.

lbctl holds instances that vanish from Consul all at once, and all instances of a
service that vanish together: it keeps them in rotation for a while, because a token
that lost rights or a wiped catalog looks the same. 'lbctl services' shows which
instances are held, and why.`,
		Args: atMost(0, ""),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	opts.Client = daemonFlags(flags, &opts.Output).client
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runAccept(cmd.Context(), opts) }
	return cmd
}

func runAccept(ctx context.Context, opts *acceptOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	accepted, err := client.Accept(ctx)
	if err != nil {
		return err
	}
	return printResult(opts.Out, opts.Output, accepted, func() error {
		if accepted.Released == 0 {
			_, err := fmt.Fprintln(opts.Out, "No instance is held.")
			return err
		}
		_, err := fmt.Fprintf(opts.Out, "Removed %s that Consul no longer lists.\n", plural(accepted.Released, "held instance"))
		return err
	})
}
