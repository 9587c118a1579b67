package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lbctl/internal/kv"
	"lbctl/internal/policy"
	"lbctl/internal/policy/policyfile"
	"lbctl/internal/printable"
)

// completePolicies completes the name of a policy that is in Consul, and then what more
// completes, if it is not nil.
func completePolicies(at *storeAddress, more storeCompletion) cobra.CompletionFunc {
	return completeStore(at, more, func(ctx context.Context, store *kv.Store) ([]cobra.Completion, error) {
		documents, err := store.List(ctx, "")
		var names []cobra.Completion
		for _, d := range documents {
			if name, err := policyfile.Name(d.Name); err == nil && name == d.Name {
				names = append(names, cobra.CompletionWithDesc(shortName(name), describePolicy(d)))
			}
		}
		return names, err
	})
}

// completeNewPolicies is like completePolicies, and also knows "default" and the services that
// have no policy yet.
func completeNewPolicies(at *storeAddress, more storeCompletion) cobra.CompletionFunc {
	return completeStore(at, more, func(ctx context.Context, store *kv.Store) ([]cobra.Completion, error) {
		documents, err := store.List(ctx, "")
		if err != nil {
			return nil, err
		}
		services, _, err := consulServices(ctx)
		about := map[string]string{policyfile.Default: "the policy of all services"}
		for _, service := range services {
			if name, err := policyfile.Name("service/" + service); err == nil {
				about[name] = "no policy yet"
			}
		}
		for _, d := range documents {
			if name, err := policyfile.Name(d.Name); err == nil && name == d.Name {
				about[name] = describePolicy(d)
			}
		}
		var names []cobra.Completion
		for name, description := range about {
			names = append(names, cobra.CompletionWithDesc(shortName(name), description))
		}
		slices.Sort(names)
		return names, err
	})
}

// shortName is the shortest argument that names a policy.
func shortName(name string) string {
	service := policyfile.Service(name)
	if again, err := policyfile.Name(service); err != nil || again != name {
		return name
	}
	return service
}

func describePolicy(d kv.Document) string {
	said, err := policy.ParseDocument(d.Value)
	if err != nil {
		return "can't be read"
	}
	return plural(len(said.Values()), "field")
}

// completeSettings completes FIELD=VALUE: the field first, then its values if they can be listed.
// path is the value of --path, for which not all fields can be set.
func completeSettings(path *string) storeCompletion {
	return func(_ context.Context, _ *kv.Store, args []string, given string) (found []cobra.Completion, _ error) {
		if field, value, ok := strings.Cut(given, "="); ok {
			return completeValues(field, value), nil
		}
		for _, f := range policy.Fields() {
			has := func(arg string) bool { return strings.HasPrefix(arg, f.Name+"=") }
			if !slices.ContainsFunc(args[1:], has) && (*path == "" || f.PerPath) {
				found = append(found, cobra.CompletionWithDesc(f.Name+"=", f.Want))
			}
		}
		return found, nil
	}
}

// completeValues completes the value of a field, or the last element of a list.
func completeValues(field, given string) (found []cobra.Completion) {
	f, err := policy.Find(field)
	if err != nil {
		return nil
	}
	values := append(slices.Concat(f.Values, f.Begins), policy.BuiltIn)
	if strings.Contains(given, ",") { // these stand alone
		values = slices.DeleteFunc(values, func(v string) bool { return v == policy.BuiltIn || v == string(policy.Off) })
	}
	for _, value := range completeList(given, values) {
		found = append(found, f.Name+"="+value)
	}
	return found
}

// completeSet completes the fields that a policy sets.
func completeSet(ctx context.Context, store *kv.Store, args []string, _ string) ([]cobra.Completion, error) {
	name, err := policyfile.Name(args[0])
	if err != nil {
		return nil, err
	}
	_, said, err := readPolicy(ctx, store, name)
	var found []cobra.Completion
	for _, v := range said.Values() {
		if slices.Contains(args[1:], v.Field.Name) {
			continue
		}
		about := v.Text
		if v.Path != "" {
			about += " for " + string(v.Path)
		}
		found = append(found, cobra.CompletionWithDesc(v.Field.Name, printable.Line(about)))
	}
	return found, err
}

// completeWrites completes the number of a write in a policy's history.
func completeWrites(ctx context.Context, store *kv.Store, args []string, _ string) ([]cobra.Completion, error) {
	name, err := policyfile.Name(args[0])
	if err != nil || len(args) > 1 {
		return nil, err
	}
	entries, err := store.History(ctx, name)
	var found []cobra.Completion
	for _, e := range entries {
		found = append(found, cobra.CompletionWithDesc(fmt.Sprint(e.Number), printable.Line(e.By())))
	}
	return found, err
}

// A storeCompletion lists what can follow the arguments. given is what is typed of the next one.
type storeCompletion func(ctx context.Context, store *kv.Store, args []string, given string) ([]cobra.Completion, error)

// completeStore completes the first argument with the names that Consul has, and then what more
// completes, if it is not nil. It says nothing if Consul does not answer in time.
func completeStore(at *storeAddress, more storeCompletion, names func(context.Context, *kv.Store) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
		found, directive := completeFromStore(at, cmd, func(ctx context.Context, store *kv.Store) ([]cobra.Completion, error) {
			switch {
			case len(args) == 0:
				return names(ctx, store)
			case more != nil:
				return more(ctx, store, args, given)
			}
			return nil, nil
		})
		if slices.ContainsFunc(found, goesOn) {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return found, directive
	}
}

// goesOn reports whether a completion is the beginning of a word only.
func goesOn(c cobra.Completion) bool {
	word, _, _ := strings.Cut(c, "\t")
	return strings.HasSuffix(word, "=") || strings.HasSuffix(word, ":") || strings.HasSuffix(word, "/")
}

// completeFromStore completes with what list gets from Consul. It says nothing if Consul does not
// answer in time.
func completeFromStore(at *storeAddress, cmd *cobra.Command, list func(context.Context, *kv.Store) ([]cobra.Completion, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := completionContext(cmd)
	defer cancel()
	if err := at.flags.finish(); err != nil { // cobra does not run PreRunE for a completion
		return nil, cobra.ShellCompDirectiveError
	}
	store, err := at.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	found, err := list(ctx, store)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
