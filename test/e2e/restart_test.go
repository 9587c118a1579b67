//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/lbtest"
)

// restartBalancer compares the time without an answer to the time that the restart
// takes. The Consul agent alone needs some five seconds to leave. If nginx stopped with
// the other programs, no answer would come during that time.
func (c *docker) restartBalancer(t *testing.T) {
	before := c.lbctl(t)
	nodes := c.nodes(t)
	probe := c.probe(t)
	began := time.Now()
	c.compose(t, "restart", "load-balancer")
	took := time.Since(began)
	c.waitRotation(t, len(nodes))
	gap := probe.stop()
	t.Logf("the restart took %s, without an answer for %s", took.Round(time.Millisecond), gap.Round(time.Millisecond))
	assert.Less(t, gap, took/2, "nginx stops last and starts first, so it answers most of the time")
	assert.GreaterOrEqual(t, c.lbctl(t).Nginx.Generation, before.Nginx.Generation, "generations are kept")
	load := c.load(t)
	load.WaitMore(t, 500)
	c.lossless(t, load)
	lbtest.Eventually(t, "nginx is a service again, and the old one is gone", func() error {
		entries, _, err := c.consul.Health().Service("nginx", "", true, nil)
		if err == nil && len(entries) != 1 {
			err = fmt.Errorf("%d of them pass", len(entries))
		}
		return err
	})
}

// A probe sends requests to nginx all the time, each over a new connection like a new
// client's.
type probe struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	gap    time.Duration // the longest time between two answers
}

func (c *docker) probe(t testing.TB) *probe {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	p := &probe{cancel: cancel}
	client := &http.Client{
		Timeout:   300 * time.Millisecond,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	answers := func() bool {
		response, err := client.Get("http://127.0.0.1:" + c.httpPort + "/")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return err == nil // any status counts, because nginx answered
	}
	lbtest.Eventually(t, "nginx answers", func() error {
		if !answers() {
			return fmt.Errorf("no answer on port %s", c.httpPort)
		}
		return nil
	})
	last := time.Now()
	p.done.Go(func() {
		for ctx.Err() == nil {
			if answers() {
				p.gap = max(p.gap, time.Since(last))
				last = time.Now()
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		p.gap = max(p.gap, time.Since(last))
	})
	return p
}

// stop ends the probe and returns the longest time between two answers.
func (p *probe) stop() time.Duration {
	p.cancel()
	p.done.Wait()
	return p.gap
}
