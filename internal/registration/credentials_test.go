package registration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lbctl/internal/consultest"
)

const webRules = `service "web" { policy = "write" } node_prefix "" { policy = "read" }`

func deleteToken(t *testing.T, agent *consultest.Server, secret string) {
	t.Helper()
	acl := agent.Client().ACL()
	token, _, err := acl.TokenReadSelf(&api.QueryOptions{Token: secret})
	require.NoError(t, err)
	_, err = acl.TokenDelete(token.AccessorID, nil)
	require.NoError(t, err)
}

// When the token file is replaced, the registrar stays registered, and leaves with the new
// token.
func TestTokenFileIsReplaced(t *testing.T) {
	agent := consultest.Start(t, consultest.ACL())
	file := filepath.Join(t.TempDir(), "token")
	old, next := agent.NewToken(webRules), agent.NewToken(webRules)
	require.NoError(t, os.WriteFile(file, []byte(old+"\n"), 0o600))
	t.Setenv(api.HTTPTokenFileEnvName, file)

	r := run(t, config(t, agent))
	r.awaitLog("msg=registered")
	awaitStatus(t, agent, "web", api.HealthPassing)
	deleteToken(t, agent, old)
	require.NoError(t, os.WriteFile(file, []byte(next+"\n"), 0o600))
	require.NoError(t, agent.Client().Agent().ServiceDeregister("web-1"))
	awaitKnown(t, agent, "web-1")
	r.awaitLog("credentials for Consul changed, using the new ones")

	// A named pipe has no writer: the registrar must not wait for one.
	require.NoError(t, os.Remove(file))
	require.NoError(t, syscall.Mkfifo(file, 0o600))
	r.awaitLog(file + " is unfit: it is a named pipe, want a regular file")

	require.NoError(t, r.stop())
	assert.Nil(t, must(entry(agent, "web")))
}

// It also leaves if the file is replaced at the last moment.
func TestTokenFileIsReplacedWhileLeaving(t *testing.T) {
	agent := consultest.Start(t, consultest.ACL())
	file := filepath.Join(t.TempDir(), "token")
	old, next := agent.NewToken(webRules), agent.NewToken(webRules)
	require.NoError(t, os.WriteFile(file, []byte(old), 0o600))
	t.Setenv(api.HTTPTokenFileEnvName, file)

	r := run(t, config(t, agent, "--drain=1h"))
	r.awaitLog("msg=registered")
	awaitStatus(t, agent, "web", api.HealthPassing)
	r.cancel()
	awaitStatus(t, agent, "web", api.HealthMaint)
	deleteToken(t, agent, old)
	r.Hurry()
	r.awaitLog("drain cut short")
	require.NoError(t, os.WriteFile(file, []byte(next), 0o600))
	require.NoError(t, r.stop())
	assert.Nil(t, must(entry(agent, "web")))
}

// Reload reads the files even if they look unchanged.
func TestReload(t *testing.T) {
	agent := consultest.Start(t)
	r := run(t, config(t, agent))
	r.awaitLog("msg=registered")
	awaitStatus(t, agent, "web", api.HealthPassing)
	r.Reload()
	r.awaitLog("credentials for Consul read again")
	require.NoError(t, r.stop())
	assert.Nil(t, must(entry(agent, "web")))
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t: t, key: key, cert: cert}
}

// issue writes a client certificate and its key.
func (a *authority) issue(certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registrar"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(a.t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}

// startTLS starts a TLS proxy to the agent. It accepts client certificates of the authority
// in trusted.
func startTLS(t *testing.T, agent *consultest.Server, trusted *atomic.Pointer[authority]) (address, caFile string) {
	t.Helper()
	target, err := url.Parse("http://" + agent.Addr)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
	server.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := server.TLS.Clone()
		now.GetConfigForClient = nil
		now.ClientCAs = x509.NewCertPool()
		now.ClientCAs.AddCert(trusted.Load().cert)
		return now, nil
	}
	server.Config.SetKeepAlivesEnabled(false) // so that each request presents its certificate
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, os.WriteFile(caFile, content, 0o600))
	return server.URL, caFile
}

func TestClientCertificateIsReplaced(t *testing.T) {
	agent := consultest.Start(t)
	var trusted atomic.Pointer[authority]
	trusted.Store(newAuthority(t, "old"))
	address, caFile := startTLS(t, agent, &trusted)
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	trusted.Load().issue(certFile, keyFile)
	t.Setenv(api.HTTPCAFile, caFile)
	t.Setenv(api.HTTPClientCert, certFile)
	t.Setenv(api.HTTPClientKey, keyFile)

	r := run(t, config(t, agent, "--consul-addr="+address))
	r.awaitLog("msg=registered")
	awaitStatus(t, agent, "web", api.HealthPassing)
	trusted.Store(newAuthority(t, "new"))
	r.awaitLog("Consul agent refuses or does not answer")

	// Only half of the new pair is there: the old one stays in use, with one warning.
	require.NoError(t, os.Remove(keyFile))
	r.awaitLog("can't use the new credentials for Consul, keeping the old ones until they change again")
	trusted.Load().issue(certFile, keyFile)
	r.awaitLog("credentials for Consul changed, using the new ones")
	r.awaitLog("Consul agent answers again")

	require.NoError(t, r.stop())
	assert.Nil(t, must(entry(agent, "web")))
}
