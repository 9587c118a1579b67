package cli

import (
	"context"

	"github.com/spf13/cobra"

	"lbctl/internal/accesslog"
	"lbctl/internal/admin"
	"lbctl/internal/requestlog"
)

// completeFilters completes the flags that say which lines of the log are wanted.
func completeFilters(flags *flags, at *daemonAddress, opts *logsOptions) {
	services := func(list func(admin.Service) []cobra.Completion) cobra.CompletionFunc {
		return ofDaemon(at, func(ctx context.Context, client *admin.Client) ([]cobra.Completion, error) {
			all, err := client.Services(ctx)
			var found []cobra.Completion
			for _, s := range all {
				if only := opts.Query.Service; only == "" || only == s.Name {
					found = append(found, list(s)...)
				}
			}
			return found, err
		})
	}
	flags.completeWith("service", ofDaemon(at, serviceNames))
	flags.completeWith("instance", services(func(s admin.Service) (found []cobra.Completion) {
		for _, i := range s.Instances {
			found = append(found, cobra.CompletionWithDesc(i.ID, s.Name+" at "+i.HostPort()+" on "+i.Node))
		}
		return found
	}))
	flags.completeWith("route", services(func(s admin.Service) (found []cobra.Completion) {
		for _, r := range s.Routes {
			found = append(found, cobra.CompletionWithDesc(r.String(), s.Name))
		}
		return found
	}))
	flags.completeWith("status", cobra.FixedCompletions([]string{"2xx", "3xx", "4xx", "5xx"}, cobra.ShellCompDirectiveNoFileComp))
	flags.completeWith("grpc-status", func(_ *cobra.Command, _ []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names := append([]string{requestlog.GRPCError}, accesslog.GRPCStatusNames()...)
		return completeList(given, names), cobra.ShellCompDirectiveNoFileComp
	})
}

// ofDaemon completes the value of a flag with what list gets from the daemon.
func ofDaemon(at *daemonAddress, list func(context.Context, *admin.Client) ([]cobra.Completion, error)) cobra.CompletionFunc {
	found := complete(at, 1, func(ctx context.Context, client *admin.Client, _ []string) ([]cobra.Completion, error) {
		return list(ctx, client)
	})
	return func(cmd *cobra.Command, _ []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return found(cmd, nil, given)
	}
}
