package consulclient

import (
	"os"
	"path/filepath"
	"syscall"
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
	changed, err := c.Reload(t.Context())
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
	changed, err = c.Reload(t.Context())
	assert.False(t, changed)
	assert.EqualError(t, err, `token file "`+path+`" is empty, want a token`)
	require.NoError(t, os.Remove(path))
	_, err = c.Reload(t.Context())
	assert.ErrorContains(t, err, "open "+path)

	write(second)
	changed, err = c.Reload(t.Context())
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
	changed, err := c.Reload(t.Context())
	require.NoError(t, err)
	require.True(t, changed)
	refusal := list(c)
	require.Error(t, refusal)
	assert.True(t, IsRefusal(refusal))
	assert.Equal(t, "no TLS connection with Consul at "+c.Address()+`: Consul refuses the certificate in "`+cert+`": tls: expired certificate`, c.Explain(refusal))

	// The certificate has been replaced already, its key has not.
	other := filepath.Join(dir, "other.key")
	authority.Issue(cert, other, time.Hour)
	changed, err = c.Reload(t.Context())
	assert.False(t, changed)
	assert.ErrorContains(t, err, "private key does not match public key")
	require.NoError(t, os.Rename(other, key))
	changed, err = c.Reload(t.Context())
	require.NoError(t, err)
	assert.True(t, changed)
	assert.NoError(t, list(c))
}

// TestFilesThatCannotBeUsed replaces one file after another, and expects an error that names it
// while the former credentials stay in use.
func TestFilesThatCannotBeUsed(t *testing.T) {
	authority := consultest.NewAuthority(t)
	consul := consultest.Start(t, consultest.ACL(), consultest.TLS(authority))
	dir := t.TempDir()
	cert, key, token := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key"), filepath.Join(dir, "token")
	ca := filepath.Join(dir, "ca", "ca.pem")
	authority.Issue(cert, key, time.Hour)
	secret := consul.NewToken(`service_prefix "" { policy = "read" }`)
	require.NoError(t, os.WriteFile(token, []byte(secret), 0o600))
	content, err := os.ReadFile(authority.CAFile)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Dir(ca), 0o755))
	require.NoError(t, os.WriteFile(ca, content, 0o600))
	config := consul.TLSConfig(cert, key)
	config.Token, config.TokenFile = "", token
	config.TLSConfig.CAFile, config.TLSConfig.CAPath = "", filepath.Dir(ca)
	c, err := New(config)
	require.NoError(t, err)
	require.NoError(t, list(c))

	pipe := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	text := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	nothing := func(string) error { return nil }
	for _, tt := range []struct {
		name, path string
		replace    func(path string) error
		want       string
	}{
		{"a named pipe for the token", token, pipe, token + " is unfit: it is a named pipe, want a regular file"},
		{"a named pipe for the certificate", cert, pipe, cert + " is unfit: it is a named pipe"},
		{"a named pipe for the key", key, pipe, key + " is unfit: it is a named pipe"},
		{"a named pipe for the authority", ca, pipe, ca + " is unfit: it is a named pipe"},
		{"a token of two lines", token, text("one\ntwo\n"), `token file "` + token + `" has a line break or another control character after 3 bytes, want a token in one line`},
		{"a token with an escape", token, text("one\x1b[31m\n"), "has a line break or another control character after 3 bytes"},
		{"an empty key", key, text(""), `client certificate "` + cert + `" with key "` + key + `": tls: failed to find any PEM data in key input`},
		{"an authority without a certificate", ca, text("nothing"), `"` + ca + `" has no certificate of an authority, want one in PEM`},
		{"no authority", ca, nothing, `directory "` + filepath.Dir(ca) + `" has no file, want certificates of authorities`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			aside := filepath.Join(dir, "aside")
			require.NoError(t, os.Rename(tt.path, aside))
			require.NoError(t, tt.replace(tt.path))
			changed, err := c.Reload(t.Context())
			assert.False(t, changed)
			assert.ErrorContains(t, err, tt.want)
			assert.NoError(t, list(c), "the former credentials are used")
			_, err = New(config)
			assert.ErrorContains(t, err, "read the credentials for Consul: ")
			assert.ErrorContains(t, err, tt.want)
			require.NoError(t, os.Rename(aside, tt.path))
			changed, err = c.Reload(t.Context())
			assert.NoError(t, err)
			assert.False(t, changed)
		})
	}
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
			"Consul at " + consul.Addr + " speaks no TLS, want an address like http://HOST:PORT, and no CONSUL_HTTP_SSL"},
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
