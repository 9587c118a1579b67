package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lbctl/internal/disk"
)

// ErrExists is the error for a certificate that is there already.
var ErrExists = errors.New("exists already")

// Own is a certificate to make, which signs itself: clients must be told to trust it.
type Own struct {
	Dir   string   // where NAME.crt and NAME.key are written
	Name  string   // see Certificate.Name
	Hosts []string // host names, wildcards and IP addresses
	Valid time.Duration
}

// CertificateFile is the path of the certificate.
func (o Own) CertificateFile() string { return filepath.Join(o.Dir, o.Name+".crt") }

// KeyFile is the path of the key.
func (o Own) KeyFile() string { return filepath.Join(o.Dir, o.Name+".key") }

// Create makes the certificate and its key. Without replace, the error is ErrExists if one of
// the files is there.
func (o Own) Create(replace bool) (Certificate, error) {
	if err := o.check(); err != nil {
		return Certificate{}, err
	}
	for _, path := range []string{o.CertificateFile(), o.KeyFile()} {
		if _, err := os.Lstat(path); err == nil && !replace {
			return Certificate{}, fmt.Errorf("%s %w", path, ErrExists)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Certificate{}, err
		}
	}
	chain, key, err := o.sign(time.Now())
	if err != nil {
		return Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return Certificate{}, err
	}
	if err := errors.Join(disk.ReplaceSecret(o.KeyFile(), -1, key), disk.Replace(o.CertificateFile(), chain)); err != nil {
		return Certificate{}, err
	}
	made, err := readPair(o.Dir, o.Name, []string{o.Name + ".crt"}, true)
	return made.Certificate, err
}

// Current returns the certificate in the files, if it has all Hosts and is valid for longer than
// WarnBefore.
func (o Own) Current() (Certificate, bool) {
	found, err := readPair(o.Dir, o.Name, []string{o.Name + ".crt"}, true)
	if err != nil || time.Now().Add(WarnBefore).After(found.NotAfter) {
		return Certificate{}, false
	}
	pair, err := tls.X509KeyPair(found.pem, found.pem)
	if err != nil {
		return Certificate{}, false
	}
	for _, host := range o.Hosts {
		if pair.Leaf.VerifyHostname(strings.ToLower(host)) != nil {
			return Certificate{}, false
		}
	}
	return found.Certificate, true
}

// check returns all mistakes.
func (o Own) check() error {
	var errs []error
	if !namePattern.MatchString(o.Name) {
		errs = append(errs, fmt.Errorf(`name %q, want letters, digits and "._*+@-"`, o.Name))
	}
	if len(o.Hosts) == 0 {
		errs = append(errs, errors.New("no host name, want one or more"))
	}
	for _, host := range o.Hosts {
		if net.ParseIP(host) == nil && !hostPattern.MatchString(strings.ToLower(host)) {
			errs = append(errs, fmt.Errorf(`host name %q, want one like "example.com" or "*.example.com", or an IP address`, host))
		}
	}
	return errors.Join(errs...)
}

func (o Own) sign(now time.Time) (chain, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"made by lbctl"}},
		NotBefore:             now.Add(-time.Hour), // for clients whose clocks are behind
		NotAfter:              now.Add(o.Valid),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range o.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, strings.ToLower(host))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), nil
}
