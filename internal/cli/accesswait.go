package cli

import (
	"context"
	"fmt"

	"lbctl/internal/access"
	"lbctl/internal/admin"
	"lbctl/internal/controller"
	"lbctl/internal/kv"
)

// The conditions of --wait.
const (
	servingRules = "nginx serves the rules about networks"
	knowingKeys  = "lbctl knows the keys"
)

// An accessWaiter waits until the daemon follows what a command wrote about access.
type accessWaiter struct {
	waiter
	client func() (*admin.Client, error)
}

// accessWaitFlags defines the flags of a command that waits for one of the conditions.
func accessWaitFlags(f *factory, flags *flags, output *string, what string) *accessWaiter {
	w := &accessWaiter{waiter: waiter{Err: f.err, Interval: waitInterval}}
	waitFlag(flags, &w.Limit, what)
	w.client = daemonFlags(flags, output).client
	return w
}

// rules waits until nginx serves the rules about networks that are in Consul.
func (w *accessWaiter) rules(ctx context.Context, store *kv.Store) error {
	return w.wait(ctx, store, access.NetworksNames, servingRules, func(status controller.Status, index uint64) (bool, error) {
		served := status.Access.ServedIndex >= index
		if status.State == controller.Frozen && !served {
			return false, problemFound("the rules are written, but a generation is pinned: 'lbctl resume' follows Consul again")
		}
		return served, nil
	})
}

// keys waits until the daemon knows the keys that are in Consul. They need no generation.
func (w *accessWaiter) keys(ctx context.Context, store *kv.Store) error {
	return w.wait(ctx, store, access.KeysNames, knowingKeys, func(status controller.Status, index uint64) (bool, error) {
		return status.Access.Index >= index, nil
	})
}

// wait waits, if the flag is given, until the daemon has the documents whose names begin with a
// text. One of them has just been written.
func (w *accessWaiter) wait(ctx context.Context, store *kv.Store, begin, what string, done func(controller.Status, uint64) (bool, error)) error {
	if w.Limit == 0 {
		return nil
	}
	index, err := store.Index(ctx, begin)
	if err != nil {
		return err
	}
	client, err := w.client()
	if err != nil {
		return err
	}
	_, err = w.until(ctx, client, what, func(status controller.Status) (bool, error) {
		if err := samePrefix(status.Access, store.Key(kv.AccessNames)); err != nil {
			return false, err
		}
		return done(status, index)
	})
	if err == nil {
		_, err = fmt.Fprintln(w.Err, "done: "+what)
	}
	return err
}
