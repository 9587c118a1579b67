//go:build bench

package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lbctl/internal/nginxtest"
)

// An identity is a self-signed certificate for 127.0.0.1, with an ECDSA key on P-256 as
// most sites have today.
type identity struct {
	cert, key string // paths, PEM
	both      string // path of one file with certificate and key
	dir       string // directory with that file only, for lbctl
	roots     *x509.CertPool
}

func newIdentity(t *testing.T) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "127.0.0.1"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"bench"}, // lbctl asks for a host name
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})

	dir := nginxtest.Dir(t)
	id := &identity{
		cert:  filepath.Join(dir, "cert.pem"),
		key:   filepath.Join(dir, "key.pem"),
		dir:   filepath.Join(dir, "certificates"),
		roots: x509.NewCertPool(),
	}
	id.both = filepath.Join(id.dir, "bench.pem")
	id.roots.AppendCertsFromPEM(certPEM)
	require.NoError(t, os.Mkdir(id.dir, 0o700))
	require.NoError(t, os.WriteFile(id.cert, certPEM, 0o600))
	require.NoError(t, os.WriteFile(id.key, keyPEM, 0o600))
	require.NoError(t, os.WriteFile(id.both, append(certPEM, keyPEM...), 0o600))
	return id
}

// client is the TLS configuration of a caller that trusts it.
func (id *identity) client() *tls.Config { return &tls.Config{RootCAs: id.roots} }
