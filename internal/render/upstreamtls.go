package render

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"

	"lbctl/internal/disk"
	"lbctl/internal/endpoints"
)

// maxPEM bounds a file with certificates.
const maxPEM = 4 << 20

// tlsFiles checks the files of a service's tls fields, and returns what changes with their
// content, so that nginx loads renewed ones. nginx refuses bad ones: then the service keeps its
// last good settings, and the problem here says what is wrong.
func (b *builder) tlsFiles(e endpoints.Entry) (version string) {
	t := e.Policy.General().TLS
	if !e.Protocol.TLS() || t.CA == "" && t.Certificate == "" && t.CertificateKey == "" {
		return ""
	}
	sum := sha256.New()
	read := func(field, path string) []byte {
		if path == "" {
			return nil
		}
		content, err := disk.ReadFile(path, maxPEM)
		if err != nil {
			var pathError *os.PathError
			if errors.As(err, &pathError) {
				err = pathError.Err
			}
			b.problem(e.Name, "%s %q can't be read: %v", field, path, err)
		}
		sum.Write(content)
		return content
	}
	if ca := read("tls.ca", t.CA); len(ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		b.problem(e.Name, "tls.ca %q has no certificate in PEM", t.CA)
	}
	certificate, key := read("tls.certificate", t.Certificate), read("tls.certificate-key", t.CertificateKey)
	if len(certificate) > 0 && len(key) > 0 {
		if _, err := tls.X509KeyPair(certificate, key); err != nil {
			b.problem(e.Name, "tls.certificate %q with tls.certificate-key %q: %v", t.Certificate, t.CertificateKey, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}
