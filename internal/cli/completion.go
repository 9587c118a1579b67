package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"lbctl/internal/admin"
)

const completionHelp = `Print a script that completes lbctl's commands, flags, generations, services, instances,
policies, denied networks and keys. The script asks the daemon that the command line
names, or for what is in Consul's KV store Consul.

  bash        lbctl completion bash > /etc/bash_completion.d/lbctl (with the package bash-completion)
  zsh         lbctl completion zsh > "${fpath[1]}/_lbctl"
  fish        lbctl completion fish > ~/.config/fish/completions/lbctl.fish
  powershell  lbctl completion powershell | Out-String | Invoke-Expression`

var shells = []string{"bash", "zsh", "fish", "powershell"}

type completionOptions struct {
	Out   io.Writer
	Root  *cobra.Command
	Shell string
}

func newCompletionCmd(f *factory) *cobra.Command {
	opts := &completionOptions{Out: f.out}
	cmd := &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Print a completion script for bash, zsh, fish or powershell",
		Long:      completionHelp,
		ValidArgs: shells,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && cobra.OnlyValidArgs(cmd, args) == nil {
				return nil
			}
			return &usageError{
				command:  cmd.CommandPath(),
				mistakes: []error{fmt.Errorf("lbctl completion takes one of bash, zsh, fish, powershell, got %s", orNothing(quoteAll(args)))},
			}
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts.Root, opts.Shell = cmd.Root(), args[0]
		return runCompletion(cmd.Context(), opts)
	}
	return cmd
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func runCompletion(_ context.Context, opts *completionOptions) error {
	switch opts.Shell {
	case "bash":
		return opts.Root.GenBashCompletionV2(opts.Out, true)
	case "zsh":
		return opts.Root.GenZshCompletion(opts.Out)
	case "fish":
		return opts.Root.GenFishCompletion(opts.Out, true)
	default:
		return opts.Root.GenPowerShellCompletionWithDesc(opts.Out)
	}
}

// completeTimeout limits how long a completion waits for the daemon.
const completeTimeout = time.Second

// completeServices completes one argument with the names of services.
func completeServices(at *daemonAddress) cobra.CompletionFunc {
	return complete(at, 1, func(ctx context.Context, client *admin.Client, _ []string) ([]cobra.Completion, error) {
		return serviceNames(ctx, client)
	})
}

// completeInstances completes the name of a service, and then one of its instances.
func completeInstances(at *daemonAddress) cobra.CompletionFunc {
	return complete(at, 2, func(ctx context.Context, client *admin.Client, args []string) ([]cobra.Completion, error) {
		if len(args) == 0 {
			return serviceNames(ctx, client)
		}
		service, err := client.Service(ctx, args[0])
		nodes := map[string]int{} // with an instance of the same ID
		for _, instance := range service.Instances {
			nodes[instance.ID]++
		}
		var names []cobra.Completion
		for _, instance := range service.Instances {
			name := instance.ID
			if nodes[name] > 1 {
				name = instance.Node + "/" + name
			}
			traffic := "no traffic"
			if instance.InRotation {
				traffic = "gets traffic"
			}
			names = append(names, cobra.CompletionWithDesc(name,
				fmt.Sprintf("%s on %s, %s, %s", instance.HostPort(), instance.Node, instance.Status, traffic)))
		}
		return names, err
	})
}

func serviceNames(ctx context.Context, client *admin.Client) ([]cobra.Completion, error) {
	services, err := client.Services(ctx)
	var names []cobra.Completion
	for _, service := range services {
		names = append(names, cobra.CompletionWithDesc(service.Name,
			fmt.Sprintf("%s, %s in rotation", cmp.Or(string(service.Protocol), "not served"), instancesCell(service).text)))
	}
	return names, err
}

// completeGenerations completes at most most arguments with the numbers of
// generations, newest first.
func completeGenerations(f *factory, at *daemonAddress, most int) cobra.CompletionFunc {
	return complete(at, most, func(ctx context.Context, client *admin.Client, _ []string) ([]cobra.Completion, error) {
		generations, err := client.Generations(ctx)
		var numbers []cobra.Completion
		for _, generation := range generations {
			what := clock(generation.Created, f.now())
			switch {
			case generation.Current:
				what += ", current"
			case generation.Served.IsZero():
				what += ", never served"
			}
			if generation.Change != "" {
				what += ": " + generation.Change
			}
			numbers = append(numbers, cobra.CompletionWithDesc(fmt.Sprint(generation.Number), what))
		}
		return numbers, err
	})
}

// complete completes at most most arguments with what list gets from the daemon for the
// arguments before. It says nothing if no daemon answers in time.
func complete(at *daemonAddress, most int, list func(ctx context.Context, client *admin.Client, args []string) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := completionContext(cmd)
		defer cancel()
		if err := at.flags.finish(); err != nil { // cobra does not run PreRunE for a completion
			return nil, cobra.ShellCompDirectiveError
		}
		client, err := at.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		found, err := list(ctx, client.Printable(), args)
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}
