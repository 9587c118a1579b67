package endpoints

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// The second look: a held instance that can't be dialled probeFall times in a
// row, probeInterval apart, is gone.
const (
	probeInterval = time.Second
	probeTimeout  = time.Second
	probeFall     = 2
	probeAtOnce   = 64
)

// Probe takes a second look at held instances over another path than Consul:
// it dials their own TCP ports, and releases those that refuse or don't
// answer. While Consul can't be trusted it looks at nothing, since an instance
// that only restarts could not come back. Probe runs until ctx is done and
// returns its error; nothing is dialled while nothing is held.
func (t *Table) Probe(ctx context.Context) error {
	falls := map[HeldInstance]int{}
	for {
		falls = t.probeHeld(ctx, falls)
		var next <-chan time.Time
		if len(falls) > 0 {
			next = time.After(probeInterval)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
		case <-next:
		}
	}
}

// probeHeld dials every held instance once. It returns, for those that stay,
// how often in a row they failed.
func (t *Table) probeHeld(ctx context.Context, before map[HeldInstance]int) map[HeldInstance]int {
	falls := map[HeldInstance]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, probeAtOnce)
	for _, h := range t.Held() {
		if h.Until.IsZero() {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			n := 0
			if err := t.dial(ctx, h.Instance.HostPort()); saysGone(err) {
				n = before[h] + 1
			}
			mu.Lock()
			defer mu.Unlock()
			falls[h] = n
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return falls // what failed, failed because we stop
	}
	for h, n := range falls {
		if n >= probeFall {
			t.Release(h.Service, h.Instance.Node, h.Instance.ID)
			delete(falls, h)
		}
	}
	return falls
}

// saysGone reports whether a dial's error is about the instance, and not about
// this machine: no free port, no network and no answer from DNS prove nothing.
func saysGone(err error) bool {
	if err == nil {
		return false
	}
	for _, ours := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENOBUFS} {
		if errors.Is(err, ours) {
			return false
		}
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return dns.IsNotFound
	}
	return true
}

func dialTCP(ctx context.Context, address string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}
