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
			if host == "slow.example" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
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
		is := func(address string, known bool, want ...string) {
			t.Helper()
			found, isKnown := n.addresses(address)
			assert.ElementsMatch(t, want, found, address)
			assert.Equal(t, known, isKnown, address)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.run(ctx) }()

		is("10.1.1.1", true, "10.1.1.1")
		is("::1", true, "::1")
		began := time.Now()
		assert.False(t, n.want([]string{"db.example", "10.1.1.1", "nowhere.example", "slow.example", "db.example"}))
		is("db.example", false)
		<-n.changed
		synctest.Wait()
		is("db.example", true, "10.0.0.1", "10.0.0.2")
		is("nowhere.example", true)
		is("slow.example", false)
		assert.Zero(t, time.Since(began), "a slow name does not delay others")
		assert.False(t, n.want([]string{"db.example", "nowhere.example", "slow.example"}))
		<-n.changed
		<-n.changed
		assert.Equal(t, lookupTimeout, time.Since(began))
		is("slow.example", true)
		assert.True(t, n.want([]string{"db.example", "nowhere.example"}))

		set("db.example", "10.0.0.3")
		<-n.changed
		is("db.example", true, "10.0.0.3")
		set("nowhere.example", "10.0.0.4")
		<-n.changed
		is("nowhere.example", true, "10.0.0.4")

		set("db.example")
		time.Sleep(3 * lookupAgain)
		is("db.example", true, "10.0.0.3") // a name that no longer resolves keeps its addresses
		select {
		case <-n.changed:
			t.Error("nothing has changed")
		default:
		}
		n.want(nil)
		is("db.example", false) // it is no longer in use
		cancel()
		assert.ErrorIs(t, <-done, context.Canceled)
	})
}
