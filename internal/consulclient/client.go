// Package consulclient makes clients of Consul's API whose credentials can be rotated: it reads
// the token file and the certificates again when they change.
//
//	client, err := consulclient.New(nil)   // from the CONSUL_ variables
//	changed, err := client.Reload(ctx)     // before each attempt, or every few seconds
//	client.API().Agent()...                // call API each time, don't keep its result
//	client.Explain(err)                    // the cause of a failed request
//
// The texts that it returns for people never contain a password or a token.
package consulclient

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/disk"
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
	reader disk.Reader[contents]
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
	if _, err := c.Reload(context.Background()); err != nil {
		return nil, fmt.Errorf("read the credentials for Consul: %w", err)
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
// them have been replaced yet, the former ones stay in use, and the next call tries again. The
// error names the file that can't be used.
// Reload reads only a few small files, so it may be called often. It returns disk.ErrStalled
// after two seconds if their file system does not answer, and ctx's error if ctx is done.
func (c *Client) Reload(ctx context.Context) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.reader.Read(ctx, func() (contents, error) { return readFiles(c.config) })
	var n *connection
	digest := files.digest()
	old := c.connection.Load()
	if err == nil {
		if old != nil && digest == c.digest {
			return false, nil
		}
		n, err = connect(c.config, files)
	}
	if err != nil {
		return false, err
	}
	c.connection.Store(n)
	c.digest = digest
	if old != nil {
		old.transport.CloseIdleConnections()
	}
	return true, nil
}

// connect makes a client with the contents of the files.
func connect(config api.Config, files contents) (*connection, error) {
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
	var err error
	if used.Token, err = files.tokenOr(config.Token); err != nil {
		return nil, err
	}
	// With this, NewClient doesn't read the files of the certificates a second time.
	if n.transport.TLSClientConfig, err = files.tlsConfig(config.TLSConfig); err != nil {
		return nil, err
	}
	made := used // a copy, because NewClient changes the address
	made.TokenFile = ""
	if n.api, err = api.NewClient(&made); err != nil {
		return nil, err
	}
	n.config = used
	return n, nil
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
