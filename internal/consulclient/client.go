// Package consulclient makes clients of Consul's API whose credentials can be rotated: it reads
// the token file and the certificates again when they change.
//
//	client, err := consulclient.New(nil)   // from the CONSUL_ variables
//	changed, err := client.Reload()        // before each attempt, or every few seconds
//	client.API().Agent()...                // call API each time, don't keep its result
//	client.Explain(err)                    // the cause of a failed request
//
// The texts that it returns for people never contain a password or a token.
package consulclient

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// The limits of connections. Each blocking query has a connection, which is idle for a moment
// between two requests.
const (
	DialTimeout = 5 * time.Second // also of the TLS handshake
	KeepAlive   = 15 * time.Second
	IdleTimeout = 90 * time.Second
	MaxIdle     = 4096
)

// Client provides an api.Client, and replaces it when the token or the certificates change on
// disk. Any goroutine may use it.
type Client struct {
	config  api.Config // without the contents of the files
	address string     // for people

	connection atomic.Pointer[connection]

	mu     sync.Mutex // of Reload
	digest [sha256.Size]byte
}

// connection is a client with the credentials of one moment.
type connection struct {
	api       *api.Client
	config    api.Config
	transport *http.Transport
}

// New makes a client from a configuration. The CONSUL_ environment variables fill in its
// empty fields; nil means the environment alone. New does not connect, but it returns an
// error if the address is not valid or a file can't be read.
func New(config *api.Config) (*Client, error) {
	c := &Client{config: *api.DefaultConfig()}
	if config != nil {
		c.config = withDefaults(*config)
	}
	address, err := parseAddress(c.config.Address, c.config.Scheme)
	if err != nil {
		return nil, fmt.Errorf("read Consul's address, as CONSUL_HTTP_ADDR has it: %w", err)
	}
	c.config.Address, c.address = address.url, address.shown
	if address.auth != nil {
		c.config.HttpAuth = address.auth
	}
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// API returns the client with the newest credentials. A running request keeps the credentials
// that it began with.
func (c *Client) API() *api.Client { return c.connection.Load().api }

// Config returns the configuration with the newest credentials, for other kinds of clients. It
// contains secrets.
func (c *Client) Config() api.Config { return c.connection.Load().config }

// Address returns Consul's address for people, without user and password.
func (c *Client) Address() string { return c.address }

// Reload reads the token file and the certificates again, and reports whether any of them has
// changed; API then returns another client. If they can't be used, perhaps because not all of
// them have been replaced yet, the former ones stay in use, and the next call tries again.
// Reload reads only a few small files, so it may be called often.
func (c *Client) Reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	digest, err := c.digestFiles()
	old := c.connection.Load()
	if err == nil && old != nil && digest == c.digest {
		return false, nil
	}
	var n *connection
	if err == nil {
		n, err = connect(c.config)
	}
	if err != nil {
		return false, fmt.Errorf("read the credentials for Consul: %w", err)
	}
	c.connection.Store(n)
	c.digest = digest
	if old != nil {
		old.transport.CloseIdleConnections()
	}
	return true, nil
}

// connect makes a client with the present contents of the files.
func connect(config api.Config) (*connection, error) {
	n := &connection{transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: DialTimeout, KeepAlive: KeepAlive}).DialContext,
		TLSHandshakeTimeout: DialTimeout,
		IdleConnTimeout:     IdleTimeout,
		MaxIdleConns:        MaxIdle,
		MaxIdleConnsPerHost: MaxIdle,
	}}
	used := config
	used.Transport, used.HttpClient = n.transport, nil
	if used.TokenFile != "" {
		token, err := readToken(used.TokenFile)
		if err != nil {
			return nil, err
		}
		used.Token = token
	}
	made := used // a copy, because NewClient changes the address
	var err error
	if n.api, err = api.NewClient(&made); err != nil {
		return nil, err
	}
	n.config = used
	return n, nil
}

func readToken(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", fmt.Errorf("token file %q is empty, want a token", path)
	}
	return token, nil
}

// digestFiles returns a hash of all files with credentials. The error names the file that can't
// be read.
func (c *Client) digestFiles() (digest [sha256.Size]byte, err error) {
	paths := []string{c.config.TokenFile, c.config.TLSConfig.CertFile, c.config.TLSConfig.KeyFile, c.config.TLSConfig.CAFile}
	if dir := c.config.TLSConfig.CAPath; dir != "" {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			return digest, err
		}
	}
	h := sha256.New()
	for _, path := range paths {
		if path == "" {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return digest, err
		}
		fmt.Fprintf(h, "%q %d\n", path, len(content))
		h.Write(content)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// withDefaults fills empty fields from the environment, as api.NewClient does.
func withDefaults(c api.Config) api.Config {
	env := api.DefaultConfig()
	c.Address = cmp.Or(c.Address, env.Address)
	c.Scheme = cmp.Or(c.Scheme, env.Scheme)
	c.Namespace = cmp.Or(c.Namespace, env.Namespace)
	c.Partition = cmp.Or(c.Partition, env.Partition)
	if c.Token == "" && c.TokenFile == "" {
		c.Token, c.TokenFile = env.Token, env.TokenFile
	}
	if c.HttpAuth == nil {
		c.HttpAuth = env.HttpAuth
	}
	c.TLSConfig.Address = cmp.Or(c.TLSConfig.Address, env.TLSConfig.Address)
	c.TLSConfig.CAFile = cmp.Or(c.TLSConfig.CAFile, env.TLSConfig.CAFile)
	c.TLSConfig.CAPath = cmp.Or(c.TLSConfig.CAPath, env.TLSConfig.CAPath)
	c.TLSConfig.CertFile = cmp.Or(c.TLSConfig.CertFile, env.TLSConfig.CertFile)
	c.TLSConfig.KeyFile = cmp.Or(c.TLSConfig.KeyFile, env.TLSConfig.KeyFile)
	c.TLSConfig.InsecureSkipVerify = c.TLSConfig.InsecureSkipVerify || env.TLSConfig.InsecureSkipVerify
	return c
}
