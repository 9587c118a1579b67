package registration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

// hold copies a request, so that it can be sent after its connection has ended.
func hold(request *http.Request) *http.Request {
	body, _ := io.ReadAll(request.Body)
	held := request.Clone(context.WithoutCancel(request.Context()))
	held.Body = io.NopCloser(bytes.NewReader(body))
	return held
}

// A registration whose answer is lost counts if the agent has the entry.
func TestUnansweredRegistrationCounts(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	proxy := startProxy(t, agent)
	proxy.loseRegistrations.Store(true)
	r := run(t, config(t, agent, proxy.address(), "--attempts=1"))
	r.awaitLog("the registration had no answer, but the agent has the entry")
	r.awaitLog("msg=registered")
	awaitStatus(t, agent, "web", api.HealthPassing)
	// It counts later too.
	require.NoError(t, agent.Client().Agent().ServiceDeregister("web-1"))
	r.awaitLog(`msg="registered again"`)
	assert.NotContains(t, r.log(), "level=WARN")
	began := time.Now()
	require.NoError(t, r.stop())
	assert.Less(t, time.Since(began), lateRegistration/2, "a registration that has arrived does not come back")
	assert.Nil(t, must(entry(agent, "web")))
}

// A registration may arrive although its answer is lost. When the registrar can't see it and
// gives up, the passing instance must not stay.
func TestUnansweredRegistrationIsDeregistered(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	proxy := startProxy(t, agent)
	proxy.loseRegistrations.Store(true)
	proxy.hideRegistrations.Store(true)
	r := run(t, config(t, agent, proxy.address(), "--attempts=2", "--attempt-delay=10ms"))
	consultest.Eventually(t, patience, func() (bool, string) {
		return proxy.registrations.Load() == 2, "not tried twice yet"
	})
	err := <-r.ended
	r.ended <- err
	require.ErrorContains(t, err, "2 attempts failed, the last one: ")
	found, err := entry(agent, "web")
	require.NoError(t, err)
	if found != nil {
		t.Errorf("web-1 is still there, %s", found.Checks.AggregatedStatus())
	}
}

// A registrar that is asked to leave at that time drains first.
func TestUnansweredRegistrationIsDrained(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	proxy := startProxy(t, agent)
	proxy.loseRegistrations.Store(true)
	proxy.hideRegistrations.Store(true)
	r := run(t, config(t, agent, proxy.address(), "--attempts=1000", "--attempt-delay=1h", "--drain=1h"))
	awaitStatus(t, agent, "web", api.HealthPassing)
	consultest.Eventually(t, patience, func() (bool, string) {
		return proxy.registrations.Load() == 1, "not tried yet"
	})
	r.cancel()
	awaitStatus(t, agent, "web", api.HealthMaint)
	r.Hurry()
	require.NoError(t, r.stop())
	assert.Nil(t, must(entry(agent, "web")))
}

// A slow agent may carry out the registration after the deregistration.
func TestLateRegistrationIsDeregistered(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	proxy := startProxy(t, agent)
	proxy.holdRegistrations.Store(true)
	r := run(t, config(t, agent, proxy.address(), "--attempts=1"))
	r.awaitLog("watching that it does not come back")
	close(proxy.held)
	<-proxy.delivered
	r.awaitLog("a late registration came back, deregistering it")
	err := <-r.ended
	r.ended <- err
	require.ErrorContains(t, err, "1 attempts failed")
	assert.Nil(t, must(entry(agent, "web")))
}

// A deregistration without an answer is tried again.
func TestDeregisteringIsTriedAgain(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	proxy := startProxy(t, agent)
	proxy.cutDeregistrations.Store(3)
	r := run(t, config(t, agent, proxy.address()))
	awaitStatus(t, agent, "web", api.HealthPassing)
	require.NoError(t, r.stop())
	_, _, err := agent.Client().Agent().Service("web-1", nil)
	assert.True(t, isStatus(err, http.StatusNotFound), fmt.Sprint(err))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
