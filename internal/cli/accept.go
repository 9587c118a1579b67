package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
)

type acceptOptions struct {
	Out    io.Writer
	Client func() (*admin.Client, error)

	Output string
	Wait   waiter
	Name   string // of a service; "": all
}

func newAcceptCmd(f *factory) *cobra.Command {
	opts := &acceptOptions{Out: f.out, Wait: waiter{Err: f.err, Interval: waitInterval}}
	cmd := &cobra.Command{
		Use:   "accept [SERVICE]",
		Short: "Remove held instances from rotation now",
		Long: `Remove held instances from rotation now.

lbctl holds instances that vanish from Consul all at once, and all instances of a
service that vanish together: it keeps them in rotation for a while, because a token
that lost rights or a wiped catalog looks the same. 'lbctl services' shows which
instances are held, and why. Without SERVICE, accept removes those of all services.`,
		Example: `  lbctl accept
  lbctl accept cart --wait 30s`,
		Args: atMost(1, "one service's name"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	waitFlag(flags, &opts.Wait.Limit, "nginx sends them no more requests")
	at := daemonFlags(flags, &opts.Output)
	opts.Client = at.client
	cmd.ValidArgsFunction = completeServices(at)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			opts.Name = args[0]
		}
		return runAccept(cmd.Context(), opts)
	}
	return cmd
}

func runAccept(ctx context.Context, opts *acceptOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	accepted, err := client.Accept(ctx, opts.Name)
	if err != nil {
		return err
	}
	err = printResult(opts.Out, opts.Output, accepted, func() error {
		if accepted.Released == 0 {
			_, err := fmt.Fprintln(opts.Out, "No instance is held.")
			return err
		}
		_, err := fmt.Fprintf(opts.Out, "Removed %s that Consul no longer lists.\n", plural(accepted.Released, "held instance"))
		return err
	})
	if err != nil || opts.Wait.Limit == 0 {
		return err
	}
	_, err = opts.Wait.until(ctx, client, "nginx serves no instance that was held", func(status controller.Status) (bool, error) {
		return released(ctx, client, opts.Name, status)
	})
	return err
}

// released reports whether nginx has the list of services without the held instances of one
// service, or of all. lbctl releases them at once, but makes the list a moment later, and the
// status may be of the list before.
func released(ctx context.Context, client *admin.Client, name string, status controller.Status) (bool, error) {
	services, err := client.Services(ctx)
	if err != nil {
		return false, err
	}
	inRotation := 0
	for _, service := range services {
		for _, instance := range service.Instances {
			if instance.Held && (name == "" || name == service.Name) {
				return false, nil
			}
		}
		inRotation += service.InRotation
	}
	return status.Pending == nil && status.Instances == inRotation && stateError(status) == nil, nil
}
