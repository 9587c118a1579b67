package registration

import (
	"context"
	"log/slog"
	"sync"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
)

// clients provides the API client for the agent with the current credentials on disk. Token
// and certificates may be replaced while the registrar runs, and the old ones are then soon
// refused.
type clients struct {
	client *consulclient.Client
	logger *slog.Logger

	mu     sync.Mutex
	failed string // the logged reason why the newest credentials can't be used
}

func newClients(cfg Config, logger *slog.Logger) (*clients, error) {
	// The rest comes from the standard CONSUL_* variables: token, TLS, namespace.
	client, err := consulclient.New(&api.Config{Address: cfg.ConsulAddr})
	if err != nil {
		return nil, err
	}
	return &clients{client: client, logger: logger}, nil
}

// agent returns the API of the agent. It reads the files on each call, which costs little
// beside the request.
func (c *clients) agent() *api.Agent {
	c.reload()
	return c.client.API().Agent()
}

// reload reads the credentials again, and reports whether they can be used. It logs
// changes.
func (c *clients) reload() bool {
	changed, err := c.client.Reload(context.Background()) // waits two seconds at most
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.failed != err.Error() {
			// Perhaps only one of the files has been replaced yet.
			c.logger.Warn("can't use the new credentials for Consul, keeping the old ones until they change again", "error", err)
		}
		c.failed = err.Error()
		return false
	}
	c.failed = ""
	if changed {
		c.logger.Info("credentials for Consul changed, using the new ones")
	}
	return true
}
