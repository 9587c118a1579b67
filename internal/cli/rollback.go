package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
	"lbctl/internal/controller"
)

const rollbackHelp = `Make nginx serve an earlier generation, and pin it: changes in Consul wait until
'lbctl resume'. 'lbctl status' shows them as pending.

Without N, rollback takes the newest earlier generation that nginx has served. N may
be any generation on disk, also a later one.`

type rollbackOptions struct {
	Out    io.Writer
	Now    func() time.Time
	Client func() (*admin.Client, error)

	Output     string
	Wait       waiter
	Generation int // 0: the one before the current one
}

func newRollbackCmd(f *factory) *cobra.Command {
	opts := &rollbackOptions{Out: f.out, Now: f.now, Wait: waiter{Err: f.err, Interval: waitInterval}}
	cmd := &cobra.Command{
		Use:   "rollback [N]",
		Short: "Go back to an earlier generation and stay there",
		Long:  rollbackHelp,
		Example: `  lbctl rollback
  lbctl rollback 38
  lbctl resume`,
		Args: generationArgs(1, "one generation"),
	}
	flags := newFlags(f, cmd)
	outputFlag(flags, &opts.Output)
	waitFlag(flags, &opts.Wait.Limit, "nginx has fetched the instances of the generation's services too")
	at := daemonFlags(flags, &opts.Output)
	opts.Client = at.client
	cmd.ValidArgsFunction = completeGenerations(f, at, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			opts.Generation, _ = strconv.Atoi(args[0]) // generationArgs has checked it
		}
		return runRollback(cmd.Context(), opts)
	}
	return cmd
}

func runRollback(ctx context.Context, opts *rollbackOptions) error {
	client, err := opts.Client()
	if err != nil {
		return err
	}
	rolled, err := client.Rollback(ctx, opts.Generation)
	if err != nil {
		return err
	}
	err = printResult(opts.Out, opts.Output, rolled, func() error {
		_, err := fmt.Fprintf(opts.Out, `nginx serves generation %d, made at %s; before, it served generation %d.
The generation is pinned: changes in Consul wait. 'lbctl resume' follows Consul again.
`, rolled.Generation.Number, ago(rolled.Generation.Created, opts.Now()), rolled.From)
		return err
	})
	if err != nil || opts.Wait.Limit == 0 {
		return err
	}
	number := rolled.Generation.Number
	what := fmt.Sprintf("nginx serves generation %d with the newest instances of its services", number)
	_, err = opts.Wait.until(ctx, client, what, func(status controller.Status) (bool, error) {
		return status.Frozen != nil && status.Frozen.Generation == number &&
			status.Nginx.Generation == number && len(status.Endpoints.Unfetched) == 0, nil
	})
	return err
}
