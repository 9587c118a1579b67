package render

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// lookupTimeout bounds how long one name can hold up everything else,
	// which it does once, when it is new.
	lookupTimeout = 2 * time.Second
	lookupAgain   = 10 * time.Second
)

// names resolves the host names that some services are registered with. nginx
// could do it itself, but refuses the whole configuration for one name that
// doesn't resolve.
type names struct {
	lookup  func(ctx context.Context, host string) ([]string, error)
	changed chan struct{}

	mu    sync.Mutex
	known map[string][]string // IP addresses, sorted; none: not resolved yet
}

func newNames() *names {
	return &names{
		lookup:  net.DefaultResolver.LookupHost,
		changed: make(chan struct{}, 1),
		known:   map[string][]string{},
	}
}

// addresses is what is known of an instance's address; an IP address is its
// own.
func (n *names) addresses(address string) []string {
	if _, err := netip.ParseAddr(address); err == nil {
		return []string{address}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[address]
}

// want says which addresses are in use. New names are looked up before it
// returns, those no longer in use are forgotten.
func (n *names) want(ctx context.Context, addresses []string) {
	inUse := map[string]bool{}
	var unknown []string
	n.mu.Lock()
	for _, address := range addresses {
		if _, err := netip.ParseAddr(address); err == nil || inUse[address] {
			continue
		}
		inUse[address] = true
		if _, ok := n.known[address]; !ok {
			n.known[address] = nil
			unknown = append(unknown, address)
		}
	}
	for name := range n.known {
		if !inUse[name] {
			delete(n.known, name)
		}
	}
	n.mu.Unlock()
	n.resolve(ctx, unknown)
}

// run looks all names up again and again; changed fires when one has got other
// addresses.
func (n *names) run(ctx context.Context) error {
	ticker := time.NewTicker(lookupAgain)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		n.mu.Lock()
		all := make([]string, 0, len(n.known))
		for name := range n.known {
			all = append(all, name)
		}
		n.mu.Unlock()
		if n.resolve(ctx, all) {
			notify(n.changed)
		}
	}
}

// resolve looks names up, and reports whether one has got other addresses. A
// name that doesn't resolve keeps those it had.
func (n *names) resolve(ctx context.Context, hosts []string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	changed := false
	var wg sync.WaitGroup
	for _, host := range hosts {
		wg.Go(func() {
			found, err := n.lookup(ctx, host)
			if err != nil {
				return
			}
			found = slices.DeleteFunc(found, func(address string) bool {
				a, err := netip.ParseAddr(address)
				return err != nil || a.Zone() != ""
			})
			slices.Sort(found)
			found = slices.Compact(found)
			n.mu.Lock()
			defer n.mu.Unlock()
			if old, ok := n.known[host]; ok && len(found) > 0 && !slices.Equal(old, found) {
				n.known[host] = found
				changed = true
			}
		})
	}
	wg.Wait()
	return changed
}
