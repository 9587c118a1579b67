package probe

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"lbctl/internal/endpoints"
	"lbctl/internal/policy/policytest"
)

func TestNewestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a", "b"), service("world", "c")})
		fault := errors.New("broken")
		p := New(tb, Options{InRotation: true, Interval: time.Second})
		p.ask = func(_ context.Context, q question) error {
			if q.address == "b.hello:7777" {
				return fault
			}
			time.Sleep(24 * time.Millisecond)
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		assert.Zero(t, p.Newest("hello"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		found := p.Newest("hello")
		assert.NoError(t, found.Passed.Err)
		assert.Equal(t, 24*time.Millisecond, found.Passed.Took)
		assert.WithinDuration(t, time.Now(), found.Passed.At, 1200*time.Millisecond)
		assert.False(t, found.Any.At.Before(found.Passed.At), "the newest of both")
		assert.NoError(t, p.Newest("world").Any.Err)

		tb.Observe(time.Now(), []endpoints.Service{service("hello", "b")}) // the one that passes is gone
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.ErrorIs(t, p.Newest("hello").Any.Err, fault)
		cancel()
		<-done
	})
}

func TestOutcomesAreForgottenWithTheirService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tb := newTable(t)
		tb.Observe(time.Now(), []endpoints.Service{service("hello", "a")})
		p := New(tb, Options{InRotation: true})
		p.ask = func(context.Context, question) error { return nil }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.NotZero(t, p.Newest("hello"))
		none := service("hello")
		none.Spec = endpoints.Spec{} // no longer balanced
		tb.Observe(time.Now(), []endpoints.Service{none})
		synctest.Wait()
		assert.Zero(t, p.Newest("hello"))
		cancel()
		<-done
	})
}

func TestOnce(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/healthz", r.URL.Path)
		w.WriteHeader(status)
	}))
	defer server.Close()
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	i := endpoints.Instance{ID: "a", Node: "n", Address: at.Addr().String(), Port: int(at.Port()), Status: endpoints.Passing}
	e := endpoints.Entry{Service: endpoints.Service{Name: "web", Spec: endpoints.Spec{Protocol: endpoints.HTTP}, Instances: []endpoints.Instance{i}}}
	checked := func(check string) endpoints.Entry {
		e := e
		e.Policy = policytest.Settings("check", check)
		return e
	}
	p := New(newTable(t), Options{})
	o, wanted := p.Once(t.Context(), checked("http:/healthz"), i)
	assert.True(t, wanted)
	assert.NoError(t, o.Err)
	assert.Positive(t, o.Took)
	status = http.StatusTeapot
	o, _ = p.Once(t.Context(), checked("http:/healthz"), i)
	assert.EqualError(t, o.Err, "HTTP status 418, want 200 to 399")
	_, wanted = p.Once(t.Context(), checked("none"), i)
	assert.False(t, wanted)
}
