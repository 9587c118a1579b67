package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/access"
	"lbctl/internal/kv"
	"lbctl/internal/printable"
)

// maxCompletions is how many networks a completion lists. There can be a hundred thousand.
const maxCompletions = 200

// completeDenied completes the networks with rules that "lbctl allow" can remove.
func (opts *networksOptions) completeDenied(cmd *cobra.Command, args []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return completeFromStore(opts.Store, cmd, func(ctx context.Context, store *kv.Store) ([]cobra.Completion, error) {
		return opts.denied(ctx, store, args, given)
	})
}

// denied lists denied networks that begin with what is given, and are not among the arguments.
func (opts *networksOptions) denied(ctx context.Context, store *kv.Store, args []string, given string) ([]cobra.Completion, error) {
	documents, err := store.List(ctx, access.NetworksNames)
	if err != nil {
		return nil, err
	}
	rules, _ := access.ReadRules(documents, opts.Now())
	var found []cobra.Completion
	last := ""
	for _, r := range rules {
		name := access.NetworkText(r.Network)
		if r.Allow || name == last || !strings.HasPrefix(name, given) || slices.Contains(args, name) || !opts.concerns(r.Service) {
			continue
		}
		last = name // of two rules for one network, the first describes it
		shown := showRule(r)
		about := shown.Access + shown.rest(opts.Now()) + ", by " + r.By
		if r.Why != "" {
			about += ": " + r.Why
		}
		if found = append(found, cobra.CompletionWithDesc(name, printable.Line(about))); len(found) == maxCompletions {
			break
		}
	}
	return found, nil
}

// concerns reports whether a command with these flags changes the rules of a service.
func (opts *networksOptions) concerns(service string) bool {
	if len(opts.Services) == 0 {
		return service == ""
	}
	return slices.Contains(opts.Services, service)
}
