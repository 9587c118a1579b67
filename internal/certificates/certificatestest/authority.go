// Package certificatestest makes certificates for tests.
package certificatestest

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
)

// Authority signs certificates.
type Authority struct {
	PEM         []byte // its own certificate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate with its chain and its key, in PEM.
type Pair struct{ Chain, Key []byte }

// NewAuthority makes an authority that signs its own certificate.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return newAuthority(t, name, nil)
}

// Intermediate makes an authority whose certificate this one signs.
func (a *Authority) Intermediate(t testing.TB, name string) *Authority {
	t.Helper()
	return newAuthority(t, name, a)
}

func newAuthority(t testing.TB, name string, parent *Authority) *Authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	a := &Authority{key: newKey(t)}
	signer := parent
	if signer == nil {
		signer = &Authority{certificate: template, key: a.key}
	}
	a.certificate = sign(t, template, signer, a.key)
	a.PEM = encode("CERTIFICATE", a.certificate.Raw)
	return a
}

// Issue makes a certificate for the host names, that is valid from an hour ago until after the
// duration, which may be negative. The first name is its subject.
func (a *Authority) Issue(t testing.TB, valid time.Duration, hosts ...string) Pair {
	t.Helper()
	return a.IssueFrom(t, time.Now().Add(-1000*time.Hour), valid, hosts...)
}

// IssueFrom is Issue with the beginning of the validity.
func (a *Authority) IssueFrom(t testing.TB, from time.Time, valid time.Duration, hosts ...string) Pair {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: hosts[0]}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   from, NotAfter: time.Now().Add(valid),
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	key := newKey(t)
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	chain := encode("CERTIFICATE", sign(t, template, a, key).Raw)
	if a.certificate.Issuer.CommonName != a.certificate.Subject.CommonName {
		chain = append(chain, a.PEM...)
	}
	return Pair{Chain: chain, Key: encode("PRIVATE KEY", text)}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template *x509.Certificate, signer *Authority, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encode(kind string, content []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
}

// Certificate returns the pair for a client.
func (p Pair) Certificate(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(p.Chain, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Serial returns the serial number of the certificate.
func (p Pair) Serial(t testing.TB) string {
	t.Helper()
	return p.Certificate(t).Leaf.SerialNumber.String()
}

// Write writes the pair as NAME.crt and NAME.key.
func (p Pair) Write(t testing.TB, dir, name string) {
	t.Helper()
	Write(t, dir, name+".crt", p.Chain)
	Write(t, dir, name+".key", p.Key)
}

// Write writes a file of a directory, in one step.
func Write(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Pool returns a pool with the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}
