package certificates

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// minRSA is the smallest key that TLS libraries of today accept, in bits.
const minRSA = 2048

// hostPattern matches the host names that nginx can have a certificate for.
var hostPattern = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)

// pair is a certificate with its chain and its key.
type pair struct {
	Certificate
	pem []byte // chain and key
}

// parsePair reads a chain for host names and its key from the text of one or two files, and
// checks them.
func parsePair(text []byte) (pair, error) {
	p, leaf, err := parseKeyPair(text)
	if err != nil {
		return pair{}, err
	}
	for _, host := range leaf.DNSNames {
		if host = strings.ToLower(strings.TrimSuffix(host, ".")); hostPattern.MatchString(host) && !slices.Contains(p.Hosts, host) {
			p.Hosts = append(p.Hosts, host)
		}
	}
	slices.Sort(p.Hosts)
	if len(p.Hosts) == 0 && len(leaf.IPAddresses) == 0 {
		return pair{}, errors.New("its certificate has no host name, want one among its subject alternative names")
	}
	return p, nil
}

// begin matches the first line of a part of a text in PEM.
var begin = regexp.MustCompile(`(?m)^-----BEGIN `)

// decode returns the parts of a text in PEM. It fails if one of them is not whole, as in a file
// that is being written: without it the others can be valid, but too few.
func decode(text []byte) (blocks []*pem.Block, err error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if begun := len(begin.FindAllIndex(text, -1)); begun != len(blocks) {
		return nil, fmt.Errorf("only %d of its %d parts in PEM are whole", len(blocks), begun)
	}
	return blocks, nil
}

// parseKeyPair reads a chain and its key, and checks them. It also returns the certificate that
// belongs to the key.
func parseKeyPair(text []byte) (pair, *x509.Certificate, error) {
	fail := func(err error) (pair, *x509.Certificate, error) { return pair{}, nil, err }
	blocks, err := decode(text)
	if err != nil {
		return fail(err)
	}
	var chain, key []*pem.Block
	for _, block := range blocks {
		switch {
		case block.Type == "CERTIFICATE":
			chain = append(chain, block)
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return fail(errors.New("its key has a passphrase, want a key without one"))
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key = append(key, block)
		}
	}
	if len(chain) == 0 {
		return fail(errors.New("it has no certificate, want one in PEM (BEGIN CERTIFICATE)"))
	}
	if len(key) != 1 {
		return fail(fmt.Errorf("it has %d keys, want one in PEM (BEGIN PRIVATE KEY), in the same file or in NAME.key", len(key)))
	}
	var p pair
	for _, block := range append(slices.Clone(chain), key...) {
		p.pem = append(p.pem, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	parsed, err := parseChain(chain)
	if err != nil {
		return fail(err)
	}
	leaf := parsed[0]
	if _, err := tls.X509KeyPair(p.pem, p.pem); err != nil {
		private, keyErr := privateKey(key[0])
		if keyErr != nil {
			return fail(fmt.Errorf("its key can't be read: %w", keyErr))
		}
		if n := slices.IndexFunc(parsed, func(c *x509.Certificate) bool { return belongs(private, c) }); n > 0 {
			return fail(fmt.Errorf("certificate %d of its chain belongs to the key, want that one first", n+1))
		}
		return fail(errors.New("its key belongs to another certificate"))
	}
	if err := checkOrder(parsed); err != nil {
		return fail(err)
	}
	if err := checkStrength(parsed); err != nil {
		return fail(err)
	}
	p.NotBefore, p.NotAfter = leaf.NotBefore, leaf.NotAfter
	return p, leaf, nil
}

func parseChain(blocks []*pem.Block) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for n, block := range blocks {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of its chain can't be read: %w", n+1, err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// checkOrder checks that each certificate is followed by the one that signed it.
func checkOrder(chain []*x509.Certificate) error {
	for n, c := range chain[1:] {
		before := chain[n]
		if !bytes.Equal(before.RawIssuer, c.RawSubject) || c.CheckSignature(before.SignatureAlgorithm, before.RawTBSCertificate, before.Signature) != nil {
			return fmt.Errorf("certificate %d of its chain is not from certificate %d (%q), want each followed by its issuer", n+1, n+2, c.Subject)
		}
	}
	return nil
}

// privateKey parses a key, in each of the forms that OpenSSL writes.
func privateKey(block *pem.Block) (crypto.PrivateKey, error) {
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

func belongs(key crypto.PrivateKey, c *x509.Certificate) bool {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// checkStrength refuses what OpenSSL refuses during a handshake: nginx -t would not tell.
func checkStrength(chain []*x509.Certificate) error {
	for n, c := range chain {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSA {
			return fmt.Errorf("certificate %d of its chain has an RSA key of %d bits, want %d or more", n+1, key.N.BitLen(), minRSA)
		}
		selfSigned := bytes.Equal(c.RawIssuer, c.RawSubject)
		weak := []x509.SignatureAlgorithm{x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1}
		if !selfSigned && slices.Contains(weak, c.SignatureAlgorithm) {
			return fmt.Errorf("certificate %d of its chain is signed with %s, want SHA-256 or better", n+1, c.SignatureAlgorithm)
		}
	}
	return nil
}

// parseAuthorities checks a file with certificates of authorities, and returns them alone.
func parseAuthorities(text []byte) (authorities []byte, err error) {
	blocks, err := decode(text)
	if err != nil {
		return nil, err
	}
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it has a %s, want only the certificates of authorities", strings.ToLower(block.Type))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("it has a certificate that can't be read: %w", err)
		}
		authorities = append(authorities, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(authorities) == 0 {
		return nil, errors.New("it has no certificate of an authority, want one in PEM (BEGIN CERTIFICATE)")
	}
	return authorities, nil
}
