package consultest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Authority signs certificates for one test.
type Authority struct {
	// CAFile is the path of the authority's certificate.
	CAFile string

	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{CAFile: filepath.Join(t.TempDir(), "ca.pem"), t: t}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "test authority"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	var der []byte
	der, a.key = a.sign(template, time.Hour)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatalf("make an authority: %v", err)
	}
	a.write(a.CAFile, "CERTIFICATE", der)
	return a
}

// Issue writes a certificate, for 127.0.0.1 and for clients, that expires after a time,
// and its key. Each file appears in one step.
func (a *Authority) Issue(certFile, keyFile string, valid time.Duration) {
	a.t.Helper()
	der, key := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "server.dc1.consul"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"server.dc1.consul", "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, valid)
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatalf("encode a key: %v", err)
	}
	a.write(certFile, "CERTIFICATE", der)
	a.write(keyFile, "EC PRIVATE KEY", encoded)
}

// sign makes a certificate, signed by the authority. The authority's first certificate
// signs itself.
func (a *Authority) sign(template *x509.Certificate, valid time.Duration) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatalf("make a key: %v", err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(valid)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatalf("sign a certificate: %v", err)
	}
	return der, key
}

func (a *Authority) write(path, kind string, der []byte) {
	a.t.Helper()
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	err := os.WriteFile(path+".new", content, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		a.t.Fatalf("write a certificate: %v", err)
	}
}

// TLS makes agents listen for HTTPS too, and accept there only clients with a certificate
// of that authority. [Server.TLSConfig] is the configuration of such a client.
func TLS(authority *Authority) Option { return func(o *options) { o.authority = authority } }

// listenTLS adds the HTTPS listener to an agent's configuration.
func (s *Server) listenTLS(authority *Authority) {
	s.t.Helper()
	port := freePort(s.t, s.ip)
	s.settings["ports"].(map[string]int)["https"] = port
	s.tlsAddr = net.JoinHostPort(s.ip, strconv.Itoa(port))
	cert, key := filepath.Join(s.dir, "server.pem"), filepath.Join(s.dir, "server.key")
	authority.Issue(cert, key, time.Hour)
	s.settings["tls"] = map[string]any{"https": map[string]any{
		"ca_file": authority.CAFile, "cert_file": cert, "key_file": key, "verify_incoming": true,
	}}
	s.authority = authority
}

// TLSConfig is the configuration of a client, with its certificate, for an agent started
// with [TLS].
func (s *Server) TLSConfig(certFile, keyFile string) *api.Config {
	return &api.Config{
		Address: s.tlsAddr, Scheme: "https", Token: s.Token,
		TLSConfig: api.TLSConfig{CAFile: s.authority.CAFile, CertFile: certFile, KeyFile: keyFile},
	}
}
