package render

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHostNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		zone := map[string][]string{"db.example": {"10.0.0.2", "fe80::1%eth0", "10.0.0.1", "10.0.0.2"}}
		n := newNames()
		n.lookup = func(ctx context.Context, host string) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			if host == "slow.example" {
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				return nil, ctx.Err()
			}
			if zone[host] == nil {
				return nil, errors.New("no such host")
			}
			return zone[host], nil
		}
		set := func(host string, addresses ...string) {
			mu.Lock()
			defer mu.Unlock()
			zone[host] = addresses
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.run(ctx) }()

		assert.Equal(t, []string{"10.1.1.1"}, n.addresses("10.1.1.1"), "an address is its own")
		assert.Equal(t, []string{"::1"}, n.addresses("::1"))
		began := time.Now()
		n.want(ctx, []string{"db.example", "10.1.1.1", "nowhere.example", "slow.example", "db.example"})
		assert.Equal(t, lookupTimeout, time.Since(began), "a slow name holds up a new one so long")
		assert.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, n.addresses("db.example"))
		assert.Empty(t, n.addresses("nowhere.example"))
		n.want(ctx, []string{"db.example", "nowhere.example", "slow.example"})
		assert.Equal(t, lookupTimeout, time.Since(began), "and once only")
		n.want(ctx, []string{"db.example", "nowhere.example"})

		set("db.example", "10.0.0.3")
		<-n.changed
		assert.Equal(t, []string{"10.0.0.3"}, n.addresses("db.example"))
		set("nowhere.example", "10.0.0.4")
		<-n.changed
		assert.Equal(t, []string{"10.0.0.4"}, n.addresses("nowhere.example"))

		set("db.example")
		time.Sleep(3 * lookupAgain)
		assert.Equal(t, []string{"10.0.0.3"}, n.addresses("db.example"), "a name that is gone keeps its addresses")
		select {
		case <-n.changed:
			t.Error("nothing has changed")
		default:
		}
		n.want(ctx, nil)
		assert.Empty(t, n.addresses("db.example"), "it is in use no more")
		cancel()
		assert.ErrorIs(t, <-done, context.Canceled)
	})
}
