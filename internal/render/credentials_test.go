package render

import (
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
	"lbctl/internal/endpoints"
	"lbctl/internal/testlog"
)

// recovery is the time within which new credentials must be in use.
const recovery = 10 * time.Second

func TestARotatedTokenIsUsed(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	const rules = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	path := filepath.Join(t.TempDir(), "token")
	first := consul.NewToken(rules)
	require.NoError(t, os.WriteFile(path, []byte(first), 0o600))
	registerGRPC(t, consul, "hello_server", "one", 7001)
	var logged testlog.Buffer
	r := run(t, consul, func(o *Options) {
		o.Consul.Token, o.Consul.TokenFile = "", path
		o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	})
	r.awaitServer(server(7001))

	acl := consul.Client().ACL()
	self, _, err := acl.TokenReadSelf(&api.QueryOptions{Token: first})
	require.NoError(t, err)
	_, err = acl.TokenDelete(self.AccessorID, nil)
	require.NoError(t, err)
	p := r.awaitProblem("consul", "refuses the token in")
	assert.Equal(t, "Consul at "+consul.Addr+` refuses the token in "`+path+`": ACL not found`, p.Message)
	r.awaitState("hello_server", endpoints.Stale, "^Consul refuses the token or the certificate, so its last answer counts$")
	status := r.Status().Consul
	assert.True(t, status.Reachable)
	assert.True(t, status.Refused)
	assert.Contains(t, logged.String(), `msg="Consul refuses the credentials"`)
	assert.NotContains(t, logged.String(), "Consul is away")

	registerGRPC(t, consul, "hello_server", "two", 7002)
	require.NoError(t, os.WriteFile(path, []byte(consul.NewToken(rules)), 0o600))
	began := time.Now()
	c := r.awaitServer(server(7002))
	assert.Less(t, time.Since(began), recovery)
	assert.True(t, hasServer(c, server(7001)))
	r.awaitNoProblems()
}

func TestRotatedCertificatesAreUsed(t *testing.T) {
	authority := consultest.NewAuthority(t)
	consul := consultest.Start(t, consultest.Persistent(), consultest.TLS(authority))
	registerGRPC(t, consul, "hello_server", "one", 7001)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	const valid = 5 * time.Second
	expires := time.Now().Add(valid)
	authority.Issue(cert, key, valid)
	r := run(t, consul, func(o *Options) { o.Consul = consul.TLSConfig(cert, key) })
	r.awaitServer(server(7001))

	consul.Stop() // open connections would go on with the expired certificate
	consultest.Eventually(t, patience, func() (bool, string) { return time.Now().After(expires), "the certificate is still valid" })
	consul.Start()
	consul.WaitReady()
	r.awaitProblem("consul", `Consul refuses the certificate in "`+cert+`": tls: expired certificate`)
	assert.True(t, r.Status().Consul.Refused)

	registerGRPC(t, consul, "hello_server", "two", 7002)
	authority.Issue(cert, filepath.Join(dir, "new.key"), time.Hour)
	p := r.awaitProblem(CredentialsSubject, "private key does not match public key")
	assert.Contains(t, p.Message, "the former ones are used")
	require.NoError(t, os.Rename(filepath.Join(dir, "new.key"), key))
	began := time.Now()
	r.awaitServer(server(7002))
	assert.Less(t, time.Since(began), recovery)
	r.awaitNoProblems()
}

func TestThePasswordInConsulsAddressIsNotShown(t *testing.T) {
	consul := consultest.Start(t)
	registerGRPC(t, consul, "hello_server", "one", 7001)
	var logged testlog.Buffer
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	r := run(t, consul, func(o *Options) {
		o.Consul.Address = "http://me:secret@" + consul.Addr + "/"
		o.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.awaitServer(server(7001))
	assert.Equal(t, "http://"+consul.Addr, r.Status().Consul.Address)
	consul.Stop()
	p := r.awaitProblem("consul", "does not answer")
	assert.NotContains(t, p.Message, "secret")
	assert.NotContains(t, p.Message, "no leader")
	assert.Contains(t, logged.String(), consul.Addr)
	assert.NotContains(t, logged.String(), "secret")
}
