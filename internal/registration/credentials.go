package registration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/hashicorp/consul/api"
)

// clients gives the API client for the agent with the credentials as they are on
// disk: token and certificates are replaced while the registrar runs, and the old
// ones are refused soon after.
type clients struct {
	cfg    Config
	logger *slog.Logger

	mu          sync.Mutex
	settings    *api.Config // of the current client
	client      *api.Client
	fingerprint string // of the files the current client was made from, or that could not be used
}

func newClients(cfg Config, logger *slog.Logger) (*clients, error) {
	c := &clients{cfg: cfg, logger: logger}
	settings := c.currentSettings()
	c.fingerprint = fingerprint(settings)
	return c, c.replace(settings)
}

// currentSettings come from Consul's standard CONSUL_* variables: token, TLS,
// namespace.
func (c *clients) currentSettings() *api.Config {
	settings := api.DefaultConfig()
	settings.Address = c.cfg.ConsulAddr
	if c.cfg.ConsulAuth != nil {
		settings.HttpAuth = c.cfg.ConsulAuth
	}
	return settings
}

// agent is the API of the agent. It looks at the files each time, which costs a
// few reads beside a request.
func (c *clients) agent() *api.Agent {
	c.mu.Lock()
	defer c.mu.Unlock()
	settings := c.currentSettings()
	if now := fingerprint(settings); now != c.fingerprint {
		c.fingerprint = now
		c.report(c.replace(settings), "credentials for Consul changed, using the new ones")
	}
	return c.client.Agent()
}

// reload reads the credentials again, also when the files look as before.
func (c *clients) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	settings := c.currentSettings()
	c.fingerprint = fingerprint(settings)
	c.report(c.replace(settings), "credentials for Consul read again")
}

func (c *clients) report(err error, done string) {
	if err != nil {
		// Perhaps only half of the files is there yet.
		c.logger.Warn("can't use the new credentials for Consul, keeping the old ones until they change again", "error", err)
		return
	}
	c.logger.Info(done, "files", credentialFiles(c.settings))
}

// replace makes a new client, and leaves the old one if that fails.
func (c *clients) replace(settings *api.Config) error {
	client, err := api.NewClient(settings) // cuts the scheme off the address
	if err != nil {
		return fmt.Errorf("connect to the Consul agent at %s: %w", c.cfg.ConsulAddr, err)
	}
	if c.settings != nil {
		c.settings.Transport.CloseIdleConnections() // they hold the old certificate
	}
	c.settings, c.client = settings, client
	return nil
}

// credentialFiles are the files that the settings name.
func credentialFiles(settings *api.Config) []string {
	var files []string
	tls := settings.TLSConfig
	for _, path := range []string{settings.TokenFile, tls.CertFile, tls.KeyFile, tls.CAFile, tls.CAPath} {
		if path != "" {
			files = append(files, path)
		}
	}
	return files
}

// fingerprint tells one content of the files from another.
func fingerprint(settings *api.Config) string {
	hash := sha256.New()
	for _, path := range credentialFiles(settings) {
		content, err := os.ReadFile(path)
		if err != nil { // a directory of certificates, or a file that is missing
			err = hashDirectory(hash, path)
		}
		fmt.Fprintf(hash, "%s %d %v\n", path, len(content), err)
		hash.Write(content)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func hashDirectory(hash io.Writer, path string) error {
	entries, err := os.ReadDir(path)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			fmt.Fprintln(hash, entry.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return err
}
