package render

import (
	"crypto/sha256"
	"encoding/hex"

	"lbctl/internal/certificates"
	"lbctl/internal/endpoints"
)

// tlsFields are the fields of policies about TLS with instances.
var tlsFields = []string{"tls.verify", "tls.server-name", "tls.ca", "tls.certificate", "tls.certificate-key"}

// TLSFiles are the files of a policy's tls fields, as nginx reads them.
type TLSFiles struct {
	CA string // empty: there is none
	// Certificate and Key are empty if there is no pair.
	Certificate, Key string
	// Renewed: Certificate and Key are copies that workers read when they connect to an instance,
	// so that nginx needs no reload for a renewed pair. Otherwise nginx's master reads them.
	Renewed bool
	// Sum changes with the content of Certificate, if nginx needs a reload for that.
	Sum string
}

// namedFiles returns the files that the policies of entries name.
func namedFiles(entries []endpoints.Entry) (all []certificates.Named) {
	for _, e := range entries {
		if n := named(e); n != (certificates.Named{}) {
			all = append(all, n)
		}
	}
	return all
}

// named returns the files that the policy of a service names, and that have an effect.
func named(e endpoints.Entry) (n certificates.Named) {
	if t := e.Policy.General().TLS; e.Protocol.TLS() {
		n.CA = t.CA
		if t.HasCertificate() {
			n.Pair = certificates.PairPaths{Certificate: t.Certificate, Key: t.CertificateKey}
		}
	}
	return n
}

// tlsFiles returns the files of a service's tls fields. The authorities become a file of the
// generation, and nginx reads the certificate in lbctl's copy: so a file that breaks later harms
// nobody. Without good content nginx gets the operator's own file, and judges it: it refuses a
// broken one, and then the service keeps its last good settings.
func (b *builder) tlsFiles(e endpoints.Entry) (f TLSFiles) {
	n := named(e)
	set := b.settings.Certificates
	if f.CA = n.CA; f.CA != "" {
		ca := set.NamedAuthorities[n.CA]
		if len(ca.PEM) > 0 && e.Policy.General().TLS.Verified() {
			f.CA = namedAuthoritiesFile(n.CA)
			b.files[f.CA] = ca.PEM
		}
		if ca.Problem != "" {
			b.policyProblem(e.Name, e.Policy, "", []string{"tls.ca"}, "tls.ca %q: %s", n.CA, ca.Problem)
		}
	}
	if n.Pair == (certificates.PairPaths{}) {
		return f
	}
	f.Certificate, f.Key = n.Pair.Certificate, n.Pair.Key
	pair := set.NamedPairs[n.Pair]
	if pair.File != "" {
		f.Certificate, f.Key, f.Renewed = pair.File, pair.File, !set.Hidden
		if set.Hidden {
			f.Sum = pair.Sum
		}
	}
	if pair.Problem != "" {
		b.policyProblem(e.Name, e.Policy, "", []string{"tls.certificate", "tls.certificate-key"}, "tls.certificate %q with tls.certificate-key %q: %s", n.Pair.Certificate, n.Pair.Key, pair.Problem)
	}
	return f
}

// namedAuthoritiesFile is the file of a generation with the authorities in a file of the operator.
func namedAuthoritiesFile(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "instance-ca/" + hex.EncodeToString(sum[:8]) + ".pem"
}
