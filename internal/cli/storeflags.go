package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
	"lbctl/internal/kv"
	"lbctl/internal/printable"
	"lbctl/internal/spelling"
)

// A storeAddress says where the operator's documents are. Consul's address and the caller's
// token are in Consul's own variables.
type storeAddress struct {
	flags  *flags
	prefix string
}

// storeFlags defines the flags of a command that reads or writes the operator's documents.
func storeFlags(flags *flags) *storeAddress {
	at := &storeAddress{flags: flags}
	kvPrefixFlag(flags, &at.prefix)
	return at
}

// kvPrefixFlag defines the flag that tells lbctl where the operator's documents are.
func kvPrefixFlag(flags *flags, into *string) {
	define(flags, into, "kv-prefix", "LBCTL_KV_PREFIX", "PREFIX", "what the keys of the operator's documents in Consul's KV store begin with", kv.DefaultPrefix,
		func(given string) (string, error) { return given, kv.CheckPrefix(given) })
}

// open returns the store. It does not connect.
func (at *storeAddress) open() (*kv.Store, error) { return kv.Open(nil, at.prefix) }

// consulServices returns the names of Consul's services, sorted. all is false if the token can't
// read all of them.
func consulServices(ctx context.Context) (names []string, all bool, err error) {
	client, err := consulclient.New(nil)
	if err != nil {
		return nil, false, err
	}
	services, meta, err := client.API().Catalog().Services((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, false, err
	}
	for name := range services {
		names = append(names, name)
	}
	slices.Sort(names)
	// Consul doesn't say to clients without a token that it filters, but all others see the service
	// "consul" at least.
	return names, !meta.ResultsFilteredByACLs && len(names) > 0, nil
}

// warnOfUnknown warns of those of the services that are not in Consul. They are no mistake, because
// a service may be about to come. what has no effect until then: "its policy".
func (at *storeAddress) warnOfUnknown(ctx context.Context, out io.Writer, services []string, what string) {
	if len(services) == 0 {
		return
	}
	known, all, err := consulServices(ctx)
	if err != nil || !all {
		return // it is only a warning
	}
	for _, service := range services {
		if slices.Contains(known, service) {
			continue
		}
		hint := ""
		if meant := spelling.Nearest(service, known); meant != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", meant)
		}
		fmt.Fprintln(out, printable.Line(fmt.Sprintf("warning: Consul has no service %q%s: %s has no effect until it comes", service, hint, what)))
	}
}
