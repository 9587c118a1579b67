package doctor

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consulclient"
	"lbctl/internal/consultest"
	"lbctl/internal/controller"
	"lbctl/internal/render"
)

func TestAddress(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		report := Examine(t.Context(), local(t, nil))
		fires(t, report, "consul-address", Failed, "127.0.0.1:1", "connection refused")
		notExamined(t, report, "consul-leader", "does not answer")
	})
	t.Run("a certificate that does not exist", func(t *testing.T) {
		s := local(t, nil)
		s.Consul, s.ConsulErr = consulclient.New(&api.Config{Address: "https://127.0.0.1:1", TLSConfig: api.TLSConfig{CAFile: filepath.Join(t.TempDir(), "ca.pem")}})
		fires(t, Examine(t.Context(), s), "consul-address", Failed, "ca.pem")
	})
	t.Run("TLS where there is none", func(t *testing.T) {
		config := *consultest.Start(t).Config()
		config.Scheme = "https"
		report := Examine(t.Context(), local(t, &config))
		fires(t, report, "consul-address", Failed, "speaks no TLS")
		assert.Contains(t, findings(report, "consul-address")[0].Mend, "http://")
	})
	t.Run("an unknown authority", func(t *testing.T) {
		authority := consultest.NewAuthority(t)
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		authority.Issue(cert, key, time.Hour)
		consul := consultest.Start(t, consultest.TLS(authority))
		fine(t, Examine(t.Context(), local(t, consul.TLSConfig(cert, key))), "consul-address")
		config := consul.TLSConfig(cert, key)
		config.TLSConfig.CAFile = ""
		fires(t, Examine(t.Context(), local(t, config)), "consul-address", Failed, "unknown authority")
	})
}

func TestQuorum(t *testing.T) {
	cluster := consultest.StartCluster(t, 3)
	client := cluster.StartClient()
	s := local(t, client.Config())
	fine(t, Examine(t.Context(), s), "consul-leader")
	cluster.Servers[0].Kill()
	cluster.WaitLeader()
	consultest.Eventually(t, time.Minute, func() (bool, string) {
		found := findings(Examine(t.Context(), s), "consul-leader")
		return found[0].State == Warning, found[0].Found
	})
	fires(t, Examine(t.Context(), s), "consul-leader", Warning, "2 of 3 servers are alive", "server-1", "2 are the quorum")
	cluster.Servers[1].Kill()
	consultest.Eventually(t, time.Minute, func() (bool, string) {
		found := findings(Examine(t.Context(), s), "consul-leader")
		return found[0].State == Failed, found[0].Found
	})
	report := Examine(t.Context(), s)
	fires(t, report, "consul-leader", Failed)
	notExamined(t, report, "consul-rights", "no leader")
}

func TestClock(t *testing.T) {
	s := local(t, consultest.Start(t).Config())
	for off, state := range map[time.Duration]State{0: OK, 20 * time.Second: Warning, -20 * time.Second: Warning, time.Hour: Failed, -time.Hour: Failed} {
		s.Now = func() time.Time { return time.Now().Add(off) } // the only clock that a test can set
		report := Examine(t.Context(), s)
		words := "ahead of"
		if off < 0 {
			words = "behind"
		}
		if state == OK {
			fine(t, report, "consul-clock")
		} else {
			fires(t, report, "consul-clock", state, words)
		}
	}
}

func TestToken(t *testing.T) {
	fine(t, Examine(t.Context(), local(t, consultest.Start(t).Config())), "consul-token")
	consul := consultest.Start(t, consultest.ACL())
	fine(t, Examine(t.Context(), local(t, consul.Config())), "consul-token")
	fine(t, Examine(t.Context(), local(t, as(consul, ""))), "consul-token")
	report := Examine(t.Context(), local(t, as(consul, "11111111-2222-3333-4444-555555555555")))
	fires(t, report, "consul-token", Failed, "ACL not found")

	token, _, err := consul.Client().ACL().TokenCreate(&api.ACLToken{Description: "for an hour", ExpirationTTL: time.Hour}, nil)
	require.NoError(t, err)
	fires(t, Examine(t.Context(), local(t, as(consul, token.SecretID))), "consul-token", Warning, "for an hour", "ends at")
}

func TestRights(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	enough := consul.NewToken(rules("read", "lb"))
	for name, test := range map[string]struct {
		rules string
		words []string // nil: it is enough
	}{
		"what is wanted": {rules: rules("read", "lb")},
		"an operator":    {rules: rules("write", "lb")},
		"nothing":        {rules: ``, words: []string{"service:read", "node:read", `key:read below "lb/"`, `key:read below "lb-access/"`, `key_prefix "lb/" { policy = "read" }`}},
		"no nodes":       {rules: `service_prefix "" { policy = "read" } key_prefix "lb" { policy = "read" }`, words: []string{"service:read", "node:read for all nodes (it sees 0)"}},
		"no keys":        {rules: `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`, words: []string{`lacks key:read below "lb/", key:read below "lb-access/"`}},
	} {
		t.Run(name, func(t *testing.T) {
			report := Examine(t.Context(), local(t, as(consul, consul.NewToken(test.rules))))
			if test.words == nil {
				fine(t, report, "consul-rights")
				return
			}
			fires(t, report, "consul-rights", Failed, test.words...)
		})
	}
	t.Run("no token", func(t *testing.T) {
		report := Examine(t.Context(), local(t, as(consul, "")))
		fires(t, report, "consul-rights", Failed, "requests without a token lack service:read for all services (it sees 0), node:read", `key:read below "lb/"`)
		assert.Contains(t, findings(report, "consul-rights")[0].Mend, "CONSUL_HTTP_TOKEN_FILE")
	})
	t.Run("an operator", func(t *testing.T) {
		s := local(t, as(consul, enough))
		notExamined(t, Examine(t.Context(), s), "operator-rights", "the daemon's token")
		operator, err := consulclient.New(as(consul, consul.NewToken(rules("write", "lb"))))
		require.NoError(t, err)
		s.Operator = operator
		fine(t, Examine(t.Context(), s), "operator-rights")
		reader, err := consulclient.New(as(consul, consul.NewToken(rules("read", "lb"))))
		require.NoError(t, err)
		s.Operator = reader
		fires(t, Examine(t.Context(), s), "operator-rights", Warning, `key:write below "lb/"`, `key_prefix "lb-history/" { policy = "write" }`)
		pairs, _, err := consul.Client().KV().List("lb", nil)
		require.NoError(t, err)
		assert.Empty(t, pairs, "the check writes nothing")
	})
}

func TestAgentLimits(t *testing.T) {
	fine(t, Examine(t.Context(), local(t, consultest.Start(t).Config())), "consul-limits")
	report := Examine(t.Context(), local(t, consultest.Start(t, consultest.MaxConns(30)).Config()))
	fires(t, report, "consul-limits", Warning, "http_max_conns_per_client is 30", "at least 42")
	report = Examine(t.Context(), local(t, consultest.Start(t, consultest.MaxConns(15)).Config()))
	fires(t, report, "consul-limits", Failed, "http_max_conns_per_client is 15")

	consul := consultest.Start(t, consultest.ACL())
	notExamined(t, Examine(t.Context(), local(t, as(consul, consul.NewToken(rules("read", "lb"))))), "consul-limits", "agent_prefix")
}

func TestPolicies(t *testing.T) {
	consul := consultest.Start(t)
	require.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "cart"}))
	for _, name := range []string{"cart", "crat"} {
		_, err := consul.Client().KV().Put(&api.KVPair{Key: "lb/service/" + name, Value: []byte(`{}`)}, nil)
		require.NoError(t, err)
	}
	s := local(t, consul.Config())
	report := Examine(t.Context(), s)
	fires(t, report, "policies", Warning, "policy lb/service/crat: it matches nothing", `such as "cart"`)
	assert.Equal(t, "'lbctl policy edit service/crat', or 'lbctl policy delete service/crat', or register the service", findings(report, "policies")[0].Mend)
	assert.Len(t, findings(report, "policies"), 1)
	_, err := consul.Client().KV().Put(&api.KVPair{Key: "lb/service/cart", Value: []byte(`{"timeout.raed": "5s"}`)}, nil)
	require.NoError(t, err)
	report = Examine(t.Context(), s)
	fires(t, report, "policies", Warning, "policy lb/service/cart: ", "timeout.raed")
	assert.Len(t, findings(report, "policies"), 2)
	_, err = consul.Client().KV().Put(&api.KVPair{Key: "lb/service/cart", Value: []byte(`{}`)}, nil)
	require.NoError(t, err)
	s.Daemon.Status = &controller.Status{Problems: []render.Problem{
		{Subject: "service cart", Message: "lb/service/cart: redirect.path /x: it has no effect on grpc services", Sources: []string{"lb/service/cart"}},
		{Subject: "service cart", Message: "lb/default: check tcp: it has no effect", Sources: []string{"lb/default"}},
	}}
	report = Examine(t.Context(), s)
	fires(t, report, "policies", Warning, "policy lb/service/cart: redirect.path /x: it has no effect on grpc services")
	assert.Len(t, findings(report, "policies"), 2)
	s.Daemon.Status = nil
	_, err = consul.Client().KV().Put(&api.KVPair{Key: "lb/crat", Value: []byte(`{}`)}, nil)
	require.NoError(t, err)
	report = Examine(t.Context(), s)
	fires(t, report, "policies", Warning, "policy lb/crat: it is no policy")
	assert.Equal(t, "'consul kv delete lb/crat'", findings(report, "policies")[0].Mend, "no command of lbctl can name it")
	s.Config.KVPrefix = "other"
	fine(t, Examine(t.Context(), s), "policies")
	s.Config.KVPrefix = "lb"
	for _, key := range []string{"lb/service/crat", "lb/crat"} {
		_, err = consul.Client().KV().Delete(key, nil)
		require.NoError(t, err)
	}
	fine(t, Examine(t.Context(), s), "policies")
}
