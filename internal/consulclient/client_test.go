package consulclient

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

const patience = 30 * time.Second

// list sends a request that Consul answers only for an accepted client.
func list(c *Client) error {
	_, _, err := c.API().ACL().TokenReadSelf(nil)
	return err
}

func TestATokenFileIsReadAgain(t *testing.T) {
	consul := consultest.Start(t, consultest.ACL())
	const rules = `service_prefix "" { policy = "read" }`
	first, second := consul.NewToken(rules), consul.NewToken(rules)
	path := filepath.Join(t.TempDir(), "token")
	write := func(content string) { require.NoError(t, os.WriteFile(path, []byte(content), 0o600)) }
	write(first + "\n")
	c, err := New(&api.Config{Address: consul.Addr, TokenFile: path})
	require.NoError(t, err)
	require.NoError(t, list(c))
	changed, err := c.Reload()
	require.NoError(t, err)
	assert.False(t, changed, "the file is unchanged")

	self, _, err := c.API().ACL().TokenReadSelf(nil)
	require.NoError(t, err)
	_, err = consul.Client().ACL().TokenDelete(self.AccessorID, nil)
	require.NoError(t, err)
	var refusal error
	consultest.Eventually(t, patience, func() (bool, string) {
		refusal = list(c)
		return refusal != nil, "the deleted token is still accepted"
	})
	assert.True(t, IsRefusal(refusal))
	assert.Equal(t, "Consul at "+consul.Addr+` refuses the token in "`+path+`": token does not exist: ACL not found`, c.Explain(refusal))

	write("")
	changed, err = c.Reload()
	assert.False(t, changed)
	assert.EqualError(t, err, `read the credentials for Consul: token file "`+path+`" is empty, want a token`)
	require.NoError(t, os.Remove(path))
	_, err = c.Reload()
	assert.ErrorContains(t, err, "read the credentials for Consul: open "+path)

	write(second)
	changed, err = c.Reload()
	require.NoError(t, err)
	assert.True(t, changed)
	require.NoError(t, list(c))
	config := c.Config()
	assert.Equal(t, second, config.Token)
}

func TestCertificatesAreReadAgain(t *testing.T) {
	authority := consultest.NewAuthority(t)
	consul := consultest.Start(t, consultest.ACL(), consultest.TLS(authority))
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	authority.Issue(cert, key, time.Hour)
	c, err := New(consul.TLSConfig(cert, key))
	require.NoError(t, err)
	require.NoError(t, list(c))

	authority.Issue(cert, key, -time.Second)
	changed, err := c.Reload()
	require.NoError(t, err)
	require.True(t, changed)
	refusal := list(c)
	require.Error(t, refusal)
	assert.True(t, IsRefusal(refusal))
	assert.Equal(t, "no TLS connection with Consul at "+c.Address()+`: Consul refuses the certificate in "`+cert+`": tls: expired certificate`, c.Explain(refusal))

	// The certificate has been replaced already, its key has not.
	other := filepath.Join(dir, "other.key")
	authority.Issue(cert, other, time.Hour)
	changed, err = c.Reload()
	assert.False(t, changed)
	assert.ErrorContains(t, err, "private key does not match public key")
	require.NoError(t, os.Rename(other, key))
	changed, err = c.Reload()
	require.NoError(t, err)
	assert.True(t, changed)
	assert.NoError(t, list(c))
}

func TestRefusalsAreExplained(t *testing.T) {
	authority := consultest.NewAuthority(t)
	consul := consultest.Start(t, consultest.ACL(), consultest.TLS(authority))
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	authority.Issue(cert, key, time.Hour)
	good := consul.TLSConfig(cert, key)
	for _, tt := range []struct {
		name   string
		change func(*api.Config)
		want   string
	}{
		{"a token that Consul doesn't know", func(c *api.Config) { c.Token = "0c2f2a4e-0000-4000-8000-000000000000" },
			"Consul at " + good.Address + " refuses the token: token does not exist: ACL not found"},
		{"no certificate", func(c *api.Config) { c.TLSConfig.CertFile, c.TLSConfig.KeyFile = "", "" },
			"no TLS connection with Consul at " + good.Address + ": Consul wants a client certificate, set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY: tls: certificate required"},
		{"an authority that did not sign Consul's certificate", func(c *api.Config) { c.TLSConfig.CAFile = consultest.NewAuthority(t).CAFile },
			"x509: certificate signed by unknown authority"},
		{"no TLS where Consul wants it", func(c *api.Config) { c.Scheme = "http" },
			"Consul at " + good.Address + " wants TLS, want an address like https://HOST:PORT, or CONSUL_HTTP_SSL=true"},
		{"TLS where Consul has none", func(c *api.Config) { c.Address = consul.Addr },
			"no TLS connection with Consul at " + consul.Addr + ": "},
		{"no agent", func(c *api.Config) { c.Address = "127.0.0.1:1" }, "Consul at 127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := *good
			tt.change(&config)
			c, err := New(&config)
			require.NoError(t, err)
			assert.Contains(t, c.Explain(list(c)), tt.want)
		})
	}
}
