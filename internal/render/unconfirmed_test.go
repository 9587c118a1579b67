package render

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
	"lbctl/internal/testlog"
)

// entry returns a service as it is served now.
func (r running) entry(name string) (endpoints.Entry, bool) {
	for _, e := range r.Status().Entries {
		if e.Name == name {
			return e, true
		}
	}
	return endpoints.Entry{}, false
}

// awaitState waits until a service is in a state with a reason that contains the text.
func (r running) awaitState(name string, state endpoints.State, reason string) endpoints.Entry {
	r.t.Helper()
	var e endpoints.Entry
	consultest.Eventually(r.t, patience, func() (bool, string) {
		e, _ = r.entry(name)
		return e.State == state && regexp.MustCompile(reason).MatchString(e.Reason), fmt.Sprintf("%s is %q: %q", name, e.State, e.Reason)
	})
	return e
}

func TestAFailingQueryAffectsItsServiceOnly(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault
		says  string
	}{
		{"an error of Consul's", fault{code: http.StatusInternalServerError, body: "rpc error making call"}, "Consul answers 500"},
		{"a token that may not read one service", fault{code: http.StatusForbidden, body: "Permission denied"}, "Consul answers 403"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			consul := consultest.Start(t)
			registerGRPC(t, consul, "api", "api-1", 7001)
			register(t, consul, "web", "web-1", 7002, []string{"http_server"}, nil)
			way, through := throughFaulty(t, consul)
			r := run(t, consul, through)
			r.await("with both", func(c Configuration) bool { return hasServer(c, server(7001)) && hasServer(c, server(7002)) })

			const query = "/v1/health/service/web"
			way.set(query, tt.fault)
			reason := "^" + tt.says + ` for it since \d\d:\d\d:\d\d, so Consul's last answer counts$`
			e := r.awaitState("web", endpoints.LastKnownGood, reason)
			assert.WithinDuration(t, time.Now(), e.Since, patience)
			p := r.awaitProblem("service web", "last-known-good: "+tt.says)
			assert.Contains(t, p.Message, tt.fault.body)
			assert.WithinDuration(t, e.Since, p.Since, 10*time.Second)

			register(t, consul, "web", "web-2", 7003, []string{"http_server"}, nil)
			registerGRPC(t, consul, "api", "api-2", 7004)
			c := r.awaitServer(server(7004))
			assert.True(t, hasServer(c, server(7002)), "web keeps its instance")
			assert.False(t, hasServer(c, server(7003)), "Consul has not answered")
			way.awaitChecks(t, 2)
			api, _ := r.entry("api")
			assert.Equal(t, endpoints.Fresh, api.State)
			status := r.Status()
			assert.Len(t, status.Problems, 1)
			assert.True(t, status.Consul.Reachable)
			assert.Empty(t, status.Consul.LastError)

			way.set(query, fault{})
			c = r.awaitServer(server(7003))
			assert.True(t, hasServer(c, server(7002)))
			r.awaitState("web", endpoints.Fresh, "^$")
			r.awaitNoProblems()

			// The problem ends even if Consul has no change to report.
			way.set(query, tt.fault)
			r.awaitState("web", endpoints.LastKnownGood, reason)
			way.set(query, fault{})
			began := time.Now()
			r.awaitState("web", endpoints.Fresh, "^$")
			assert.Less(t, time.Since(began), time.Minute, "less than a query waits for a change")
		})
	}
}

func TestANewServiceWithAFailingQueryDoesNotDelayOthers(t *testing.T) {
	consul := consultest.Start(t)
	way, through := throughFaulty(t, consul)
	registerGRPC(t, consul, "api", "api-1", 7001)
	r := run(t, consul, through)
	r.awaitServer(server(7001))

	way.set("/v1/health/service/web", fault{code: http.StatusInternalServerError, body: "no"})
	register(t, consul, "web", "web-1", 7002, []string{"http_server"}, nil)
	r.awaitProblem("service web", "it is not served: no")
	registerGRPC(t, consul, "api", "api-2", 7003)
	r.awaitServer(server(7003))

	way.set("/v1/health/service/web", fault{})
	r.awaitServer(server(7002))
	r.awaitNoProblems()
}

func TestAQueryThatNeverSucceededKeepsTheSnapshotsInstances(t *testing.T) {
	consul := consultest.Start(t)
	registerGRPC(t, consul, "api", "api-1", 7001)
	register(t, consul, "web", "web-1", 7002, []string{"http_server"}, nil)
	path := filepath.Join(t.TempDir(), "endpoints.json")
	table, err := endpoints.Open(path, endpoints.Options{})
	require.NoError(t, err)
	way, through := throughFaulty(t, consul)
	run(t, consul, through, func(o *Options) { o.Table = table })
	consultest.Eventually(t, patience, func() (bool, string) {
		content, err := os.ReadFile(path)
		return err == nil && bytes.Contains(content, []byte("7001")) && bytes.Contains(content, []byte("7002")), string(content)
	})

	way.set("/v1/health/service/web", fault{code: http.StatusInternalServerError, body: "no"})
	restored, err := endpoints.Open(path, endpoints.Options{})
	require.NoError(t, err)
	registerGRPC(t, consul, "api", "api-2", 7003)
	again := run(t, consul, through, func(o *Options) { o.Table = restored })
	c := again.awaitServer(server(7003))
	assert.True(t, hasServer(c, server(7002)), "from the snapshot")
	again.awaitState("web", endpoints.LastKnownGood, "^Consul answers 500 for it since")
	again.awaitState("api", endpoints.Fresh, "^$")
	again.awaitProblem("service web", "last-known-good: Consul answers 500")

	registerGRPC(t, consul, "api", "api-3", 7004)
	c = again.awaitServer(server(7004))
	assert.True(t, hasServer(c, server(7002)))
	web, _ := again.entry("web")
	assert.Empty(t, web.Held, "web has not vanished")

	way.set("/v1/health/service/web", fault{})
	again.awaitState("web", endpoints.Fresh, "^$")
	again.awaitNoProblems()
}

func TestFailureOfAllQueriesIsOneProblem(t *testing.T) {
	consul := consultest.Start(t)
	registerGRPC(t, consul, "api", "api-1", 7001)
	register(t, consul, "web", "web-1", 7002, []string{"http_server"}, nil)
	way, through := throughFaulty(t, consul)
	r := run(t, consul, through)
	r.await("with both", func(c Configuration) bool { return hasServer(c, server(7001)) && hasServer(c, server(7002)) })
	for _, path := range []string{"/v1/catalog/services", "/v1/health/service/api", "/v1/health/service/web"} {
		way.set(path, fault{code: http.StatusInternalServerError, body: "no"})
	}
	r.awaitState("api", endpoints.LastKnownGood, "Consul answers 500")
	r.awaitState("web", endpoints.LastKnownGood, "Consul answers 500")
	consultest.Eventually(t, patience, func() (bool, string) {
		problems := r.Status().Problems
		return len(problems) == 1 && problems[0].Subject == "consul", fmt.Sprint(problems)
	})
}

func TestAStalledQueryIsRenewed(t *testing.T) {
	for _, tt := range []struct{ name, path, query, service string }{
		{"of a service", "/v1/health/service/web", "instances(web)", "web"},
		{"of the list of services", "/v1/catalog/services", "catalog.services", "new"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			consul := consultest.Start(t)
			registerGRPC(t, consul, "api", "api-1", 7001)
			register(t, consul, "web", "web-1", 7002, []string{"http_server"}, nil)
			way, through := throughFaulty(t, consul)
			var logged testlog.Buffer
			t.Cleanup(func() { log.SetOutput(os.Stderr) })
			r := run(t, consul, through, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
			r.await("with both", func(c Configuration) bool { return hasServer(c, server(7001)) && hasServer(c, server(7002)) })
			assert.NotContains(t, logged.String(), "stalled")

			way.set(tt.path, fault{stalls: true})
			began := time.Now()
			register(t, consul, tt.service, tt.service+"-2", 7003, nil, map[string]string{"lb-protocol": "http", "lb-path": "/" + tt.service})
			r.awaitServer(server(7003))
			t.Logf("registered behind a stalled query to rendered: %s", time.Since(began))
			assert.Contains(t, logged.String(), fmt.Sprintf("msg=\"a query has stalled and is sent again\" query=%s", tt.query))
			r.awaitNoProblems()
		})
	}
}

func TestARemovedNodeCheckIsNoStalledQuery(t *testing.T) {
	consul := consultest.Start(t)
	registerGRPC(t, consul, "api", "api-1", 7001)
	way, through := throughFaulty(t, consul)
	var logged testlog.Buffer
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	r := run(t, consul, through, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	r.awaitServer(server(7001))

	_, before, err := consul.Client().Catalog().Services(nil)
	require.NoError(t, err)
	require.NoError(t, consul.Client().Agent().EnableNodeMaintenance(""))
	r.await("without it", func(c Configuration) bool { return !hasServer(c, server(7001)) })
	require.NoError(t, consul.Client().Agent().DisableNodeMaintenance())
	r.awaitServer(server(7001))
	_, after, err := consul.Client().Catalog().Services(nil)
	require.NoError(t, err)
	require.Greater(t, after.LastIndex, before.LastIndex, "the list's index goes up without a change")

	way.awaitChecks(t, 4) // every other check covers the list, and one more is allowed
	assert.NotContains(t, logged.String(), "stalled")
}

func TestIndexesThatGoBackAreFollowed(t *testing.T) {
	consul := consultest.Start(t)
	for n := range 100 {
		put(t, consul, "filler", fmt.Sprint(n))
	}
	registerGRPC(t, consul, "api", "api-1", 7001)
	r := run(t, consul)
	r.awaitServer(server(7001))
	_, before, err := consul.Client().Health().Service("api", "", false, nil)
	require.NoError(t, err)

	consul.Stop()
	consul.Start() // without data, and with a new index
	consul.WaitReady()
	registerGRPC(t, consul, "api", "api-1", 7005)
	c := r.awaitServer(server(7005))
	assert.False(t, hasServer(c, server(7001)))
	_, after, err := consul.Client().Health().Service("api", "", false, nil)
	require.NoError(t, err)
	require.Less(t, after.LastIndex, before.LastIndex)
	registerGRPC(t, consul, "api", "api-2", 7006)
	r.awaitServer(server(7006))
	r.awaitNoProblems()
}
