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
		Short: "Take Consul's word that held instances are gone",
		Long: `Take Consul's word that held instances are gone, and let them go now.

Instances that vanish from Consul in a suspicious way, all at once or all of a
service, are held: they stay in rotation for a while, since a token that became
too weak and a catalog that was wiped look just like that. 'lbctl services' shows
which ones are held, and why.`,
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
	if opts.Output == outputJSON {
		return writeJSON(opts.Out, accepted)
	}
	if accepted.Released == 0 {
		_, err = fmt.Fprintln(opts.Out, "No instance is held.")
		return err
	}
	_, err = fmt.Fprintf(opts.Out, "Let go of %s that Consul no longer lists.\n", count(accepted.Released, "instance"))
	return err
}
