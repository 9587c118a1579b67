package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lbctl/internal/kv"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
)

// finishCompletions has the values of all flags completed by their kind, and nothing completed
// where a command takes no arguments: by default cobra completes the names of files.
func finishCompletions(command *cobra.Command) {
	if command.ValidArgsFunction == nil && len(command.ValidArgs) == 0 && !command.HasSubCommands() {
		command.ValidArgsFunction = cobra.NoFileCompletions
	}
	command.Flags().VisitAll(func(flag *pflag.Flag) {
		if _, known := command.GetFlagCompletionFunc(flag.Name); !known {
			_ = command.RegisterFlagCompletionFunc(flag.Name, completeKind(flag.Value.Type())) // the flag is there
		}
	})
	for _, sub := range command.Commands() {
		finishCompletions(sub)
	}
}

// completeKind completes the value of a flag by the name that --help has for it.
func completeKind(kind string) cobra.CompletionFunc {
	switch kind {
	case kindFile:
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	case kindDir:
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	}
	return cobra.NoFileCompletions
}

// The kinds of values that are paths on this machine.
const (
	kindFile = "FILE"
	kindDir  = "DIR"
)

// completeWith has the values of a new flag completed by a function.
func (f *flags) completeWith(name string, complete cobra.CompletionFunc) {
	_ = f.command.RegisterFlagCompletionFunc(name, complete)
}

// choose adds a flag that has one of some values.
func choose(f *flags, into *string, name, variable, kind, usage, before string, choices ...string) {
	define(f, into, name, variable, kind, usage, before, parseChoice(choices...))
	f.completeWith(name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
}

// completeServiceList completes a list of Consul's services, separated by commas.
func completeServiceList(cmd *cobra.Command, _ []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := completionContext(cmd)
	defer cancel()
	names, _, err := consulServices(ctx)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	return completeList(given, names), cobra.ShellCompDirectiveNoFileComp
}

// completeList completes the last element of a list, with those that it does not have yet.
func completeList(given string, values []string) (found []cobra.Completion) {
	before := given[:strings.LastIndexByte(given, ',')+1]
	for _, value := range values {
		if !slices.Contains(strings.Split(before, ","), value) {
			found = append(found, before+printable.Line(value))
		}
	}
	return found
}

// completePaths completes the paths for which a policy, the first argument, says something.
func completePaths(at *storeAddress) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeFromStore(at, cmd, func(ctx context.Context, store *kv.Store) (found []cobra.Completion, err error) {
			name, err := policyfile.Name(args[0])
			if err != nil {
				return nil, err
			}
			_, said, err := readPolicy(ctx, store, name)
			for _, v := range said.Values() {
				if path := string(v.Path); path != "" && !slices.Contains(found, path) {
					found = append(found, path)
				}
			}
			return found, err
		})
	}
}

// completionContext is the context of a completion: a shell must not wait for long.
func completionContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx := cmd.Context()
	if ctx == nil { // cobra sets no context for a completion
		ctx = context.Background()
	}
	return context.WithTimeout(ctx, completeTimeout)
}
