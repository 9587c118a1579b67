package consulclient

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/disk"
)

// maxFile bounds each file with credentials. The certificates of all public authorities are
// some 200 KiB.
const maxFile = 4 << 20

// contents has the files with credentials as they were at one moment.
type contents struct {
	token, cert, key file
	authorities      []file
}

// file is a file and its content; the zero file is one that is not configured.
type file struct {
	path    string
	content []byte
}

// readFiles reads all files with credentials. The error names the file that can't be read.
func readFiles(config api.Config) (c contents, err error) {
	authorities := []string{config.TLSConfig.CAFile}
	if config.TLSConfig.CAFile == "" && config.TLSConfig.CAPath != "" {
		if authorities, err = filesIn(config.TLSConfig.CAPath); err != nil {
			return c, err
		}
	}
	c.token.path, c.cert.path, c.key.path = config.TokenFile, config.TLSConfig.CertFile, config.TLSConfig.KeyFile
	for _, f := range []*file{&c.token, &c.cert, &c.key} {
		if err := f.read(); err != nil {
			return c, err
		}
	}
	for _, path := range authorities {
		f := file{path: path}
		if err := f.read(); err != nil {
			return c, err
		}
		c.authorities = append(c.authorities, f)
	}
	return c, nil
}

func (f *file) read() (err error) {
	if f.path != "" {
		f.content, err = disk.ReadFile(f.path, maxFile)
	}
	return err
}

func filesIn(dir string) (paths []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}

// digest returns a hash of all files.
func (c contents) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, f := range append([]file{c.token, c.cert, c.key}, c.authorities...) {
		fmt.Fprintf(h, "%q %d\n", f.path, len(f.content))
		h.Write(f.content)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// tokenOr returns the token in the token file, or configured if there is no such file. The
// error does not quote the token.
func (c contents) tokenOr(configured string) (string, error) {
	token, source := configured, "the token"
	if c.token.path != "" {
		token, source = strings.TrimSpace(string(c.token.content)), fmt.Sprintf("token file %q", c.token.path)
		if token == "" {
			return "", fmt.Errorf("%s is empty, want a token", source)
		}
	}
	// A header of HTTP can't have these characters.
	if n := strings.IndexFunc(token, unicode.IsControl); n >= 0 {
		return "", fmt.Errorf("%s has a line break or another control character after %d bytes, want a token in one line", source, n)
	}
	return token, nil
}

// tlsConfig returns the settings for TLS with the certificates in the files.
func (c contents) tlsConfig(config api.TLSConfig) (*tls.Config, error) {
	var pair []tls.Certificate
	if c.cert.path != "" && c.key.path != "" {
		loaded, err := tls.X509KeyPair(c.cert.content, c.key.content)
		if err != nil {
			return nil, fmt.Errorf("client certificate %q with key %q: %w", c.cert.path, c.key.path, err)
		}
		pair = []tls.Certificate{loaded}
		config.CertFile, config.KeyFile = "", ""
	}
	if config.CAFile != "" || config.CAPath != "" {
		var err error
		if config.CAPem, err = c.trusted(config.CAPath); err != nil {
			return nil, err
		}
		config.CAFile, config.CAPath = "", ""
	}
	settings, err := api.SetupTLSConfig(&config)
	if err == nil && pair != nil {
		settings.Certificates = pair
	}
	return settings, err
}

// trusted returns the certificates of all authorities. Without any, TLS would trust those of
// the system.
func (c contents) trusted(dir string) (all []byte, err error) {
	for _, f := range c.authorities {
		if !x509.NewCertPool().AppendCertsFromPEM(f.content) {
			return nil, fmt.Errorf("%q has no certificate of an authority, want one in PEM", f.path)
		}
		all = append(append(all, f.content...), '\n')
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("directory %q has no file, want certificates of authorities", dir)
	}
	return all, nil
}
