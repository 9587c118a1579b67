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
	var looks map[probed]look
	for {
		looks = t.probeHeld(ctx, looks)
		var next <-chan time.Time
		if len(looks) > 0 {
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

// probed is a held instance at the address that was dialled.
type probed struct {
	service string
	id      id
	address string
}

// look is the last dial of a held instance.
type look struct {
	at    time.Time
	falls int // failures in a row, with this one
}

// probeHeld dials every held instance whose last look is long enough ago, and
// returns the last looks at all that stay.
func (t *Table) probeHeld(ctx context.Context, before map[probed]look) map[probed]look {
	looks := map[probed]look{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, probeAtOnce)
	for _, h := range t.Held() {
		if h.Until.IsZero() {
			continue
		}
		p := probed{h.Service, h.Instance.key(), h.Instance.HostPort()}
		last, ok := before[p]
		if ok && time.Since(last.at) < probeInterval {
			mu.Lock()
			looks[p] = last
			mu.Unlock()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			now := look{at: time.Now()}
			if err := t.dial(ctx, p.address); saysGone(err) {
				now.falls = last.falls + 1
			}
			mu.Lock()
			defer mu.Unlock()
			looks[p] = now
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return looks // what failed, failed because we stop
	}
	for p, l := range looks {
		if l.falls >= probeFall {
			t.Release(p.service, p.id.node, p.id.id)
			delete(looks, p)
		}
	}
	return looks
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
