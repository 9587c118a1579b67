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
	lookupTimeout = 2 * time.Second
	lookupAgain   = 10 * time.Second
)

// names looks up the host names that some instances are registered with. nginx could do
// that too, but it refuses the whole configuration if a single name doesn't resolve.
type names struct {
	lookup func(ctx context.Context, host string) ([]string, error)
	// changed fires when the addresses of a name change, and after its first lookup.
	changed chan struct{}
	added   chan struct{} // fires when there are names that were never looked up

	mu    sync.Mutex
	known map[string]hostAddresses
}

// hostAddresses is the result of looking up a host name.
type hostAddresses struct {
	addresses []string // IP addresses, sorted; none: it doesn't resolve
	asked     bool     // it was looked up, even if without success
}

func newNames() *names {
	return &names{
		lookup:  net.DefaultResolver.LookupHost,
		changed: make(chan struct{}, 1),
		added:   make(chan struct{}, 1),
		known:   map[string]hostAddresses{},
	}
}

// addresses returns the IP addresses for the address of an instance; for an IP address it
// returns that. known is false until the first lookup of a name has ended.
func (n *names) addresses(address string) (found []string, known bool) {
	if _, err := netip.ParseAddr(address); err == nil {
		return []string{address}, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	host := n.known[address]
	return host.addresses, host.asked
}

// want sets which addresses are in use. run looks up new ones at once; names that are no
// longer in use are dropped. settled is false until all have been looked up.
func (n *names) want(addresses []string) (settled bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	inUse := make(map[string]bool, len(addresses))
	settled = true
	for _, address := range addresses {
		if _, err := netip.ParseAddr(address); err == nil {
			continue
		}
		inUse[address] = true
		host, known := n.known[address]
		if !known {
			n.known[address] = host
			notify(n.added)
		}
		settled = settled && host.asked
	}
	for name := range n.known {
		if !inUse[name] {
			delete(n.known, name)
		}
	}
	return settled
}

// lookUp is like want, but looks up new names before it returns.
func (n *names) lookUp(ctx context.Context, addresses []string) {
	n.want(addresses)
	n.resolve(ctx, n.list(isNew))
}

// run looks up new names at once, and all names every lookupAgain.
func (n *names) run(ctx context.Context) error {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	ticker := time.NewTicker(lookupAgain)
	defer ticker.Stop()
	for {
		var hosts []string
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.added:
			hosts = n.list(isNew)
		case <-ticker.C:
			hosts = n.list(func(hostAddresses) bool { return true })
		}
		lookups.Go(func() { n.resolve(ctx, hosts) })
	}
}

func isNew(host hostAddresses) bool { return !host.asked }

// list returns the names for which include returns true.
func (n *names) list(include func(hostAddresses) bool) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var hosts []string
	for host, addresses := range n.known {
		if include(addresses) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// resolve looks up names. A name that doesn't resolve keeps its former addresses.
func (n *names) resolve(ctx context.Context, hosts []string) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var lookups sync.WaitGroup
	for _, host := range hosts {
		lookups.Go(func() {
			found, err := n.lookup(ctx, host)
			if err != nil {
				found = nil
			}
			n.store(host, found)
		})
	}
	lookups.Wait()
}

// store stores the result of a lookup.
func (n *names) store(host string, found []string) {
	found = slices.DeleteFunc(slices.Clone(found), func(address string) bool {
		a, err := netip.ParseAddr(address)
		return err != nil || a.Zone() != ""
	})
	slices.Sort(found)
	found = slices.Compact(found)
	n.mu.Lock()
	defer n.mu.Unlock()
	old, ok := n.known[host]
	if !ok {
		return // it is no longer in use
	}
	if len(found) == 0 {
		found = old.addresses
	}
	n.known[host] = hostAddresses{addresses: found, asked: true}
	if !old.asked || !slices.Equal(old.addresses, found) {
		notify(n.changed)
	}
}
