package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
)

const policyHelp = `Read and change the operator's policies: how services are balanced.

A policy is a document in Consul's KV: "default" for all services, and one for each
service that needs its own. What holds for a field, the strongest last:

  built in < policy "default" < what the service says in metadata < its policy

NAME is "default", or a service as "cart" or "service/cart". These commands talk to
Consul itself, with Consul's own variables CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and so on;
the running daemons see a change at once. Each write is recorded with who made it, when
and why, and can be undone. If somebody else has changed a policy meanwhile, a write
fails, and shows what changed.`

func newPolicyCmd(f *factory) *cobra.Command {
	return newGroupCmd("policy", "Read and change how services are balanced", policyHelp,
		newPolicyListCmd(f), newPolicyGetCmd(f), newPolicyHistoryCmd(f),
		newPolicySetCmd(f), newPolicyUnsetCmd(f), newPolicyEditCmd(f), newPolicyApplyCmd(f), newPolicyDeleteCmd(f), newPolicyUndoCmd(f),
		newPolicyExplainCmd(f), newPolicySchemaCmd(f),
	)
}

// policyArgs checks the arguments of a command about one policy: its name, and at least least
// further ones.
func policyArgs(least int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= least {
			return &usageError{
				command:  cmd.CommandPath(),
				mistakes: []error{fmt.Errorf("%s takes %s, got %s", cmd.CommandPath(), what, orNothing(quoteAll(args)))},
			}
		}
		return nil
	}
}

// policyName turns an argument into the name of a document.
func policyName(cmd *cobra.Command, arg string) (string, error) {
	name, err := policyfile.Name(arg)
	if err != nil {
		return "", &usageError{command: cmd.CommandPath(), mistakes: []error{err}}
	}
	return name, nil
}

// readPolicy reads and parses a policy. A policy that is not in Consul says nothing.
func readPolicy(ctx context.Context, store *kv.Store, name string) (kv.Document, policy.Document, error) {
	document, err := store.Read(ctx, name)
	if err != nil || !document.Exists() {
		return document, policy.Document{}, err
	}
	said, err := policy.ParseDocument(document.Value)
	if err != nil {
		return document, said, fmt.Errorf("%s in Consul can't be read; 'lbctl policy edit %s' mends it, and 'lbctl policy delete %s' removes it:\n%w",
			store.Key(name), name, name, err)
	}
	return document, said, nil
}
