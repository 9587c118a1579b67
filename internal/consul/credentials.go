package consul

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/consul-template/dependency"

	"lbctl/internal/consulclient"
)

// credentials gives Consul's clients a new token and new certificates when their files
// change. Any goroutine may use it.
type credentials struct {
	client  *consulclient.Client
	native  *dependency.ClientSet // consul-template's client, which all queries use
	queries *queries
	logger  *slog.Logger

	mu      sync.Mutex
	problem Problem // why the files can't be used; its Message is empty if they can
}

func newCredentials(client *consulclient.Client, queries *queries, logger *slog.Logger) (*credentials, error) {
	c := &credentials{client: client, native: dependency.NewClientSet(), queries: queries, logger: logger}
	return c, c.connect()
}

// connect gives consul-template a client with the newest credentials.
func (c *credentials) connect() error {
	config := c.client.Config()
	if err := c.native.CreateConsulClient(clientInput(&config)); err != nil {
		return fmt.Errorf("make a Consul client: %w", err)
	}
	return nil
}

// reload reads the files again. If they have changed, all queries are sent again with the
// new credentials. If they can't be used, the former credentials stay in use.
func (c *credentials) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.client.Reload()
	if changed {
		err = c.connect()
	}
	if err != nil {
		if message := err.Error() + "; the former ones are used"; message != c.problem.Message {
			c.logger.Warn("credentials for Consul can't be used", "error", err)
			c.problem = Problem{Message: message, Since: time.Now()}
		}
		return err
	}
	c.problem = Problem{}
	if changed {
		c.logger.Info("credentials for Consul have changed and are used from now on", "address", c.client.Address())
		c.queries.renewAll()
	}
	return nil
}

// problems returns the problem with the files, if there is one.
func (c *credentials) problems() []Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem.Message == "" {
		return nil
	}
	return []Problem{c.problem}
}
