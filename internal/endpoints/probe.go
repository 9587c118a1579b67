package endpoints

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// The second look: a held instance that doesn't answer probeFall times in a row,
// probeInterval apart, is gone; networkFall times where the network is the reason.
const (
	probeInterval = time.Second
	probeTimeout  = time.Second
	probeFall     = 2
	networkFall   = 6
	probeAtOnce   = 64
)

// Probe takes a second look at held instances over another path than Consul:
// it speaks to them in their own protocol, and releases those that refuse or
// don't answer. While Consul can't be trusted it looks at nothing, since an instance
// that only restarts could not come back. Probe runs until ctx is done and
// returns its error; nothing is asked while nothing is held.
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

// probed is a held instance as it was asked.
type probed struct {
	service  string
	id       id
	protocol Protocol
	address  string
}

// look is the last question to a held instance.
type look struct {
	at    time.Time
	falls int // failures in a row, with this one
	// enough is how many of them say that it is gone; 0 when it answered.
	enough int
}

// probeHeld asks every held instance whose last look is long enough ago, and
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
		p := probed{h.Service, h.Instance.key(), h.Protocol, h.Instance.HostPort()}
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
			if n := enough(t.answers(ctx, p.protocol, p.address)); n > 0 {
				now.falls, now.enough = last.falls+1, n
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
		if l.enough > 0 && l.falls >= l.enough {
			t.Release(p.service, p.id.node, p.id.id)
			delete(looks, p)
		}
	}
	return looks
}

// enough is how many failures in a row like err say that the instance is gone; 0
// for an error that is about this machine and not about the instance: no free
// port and no answer from DNS prove nothing. A network that can't be reached may
// be ours or the instance's, so it is given time to come back.
func enough(err error) int {
	if err == nil {
		return 0
	}
	for _, ours := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS} {
		if errors.Is(err, ours) {
			return 0
		}
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && !dns.IsNotFound {
		return 0
	}
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ENETDOWN) {
		return networkFall
	}
	return probeFall
}
