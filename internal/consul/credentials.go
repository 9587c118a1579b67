package consul

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/consul-template/dependency"

	"lbctl/internal/consulclient"
	"lbctl/internal/disk"
)

// credentials gives Consul's clients a new token and new certificates when their files
// change. Any goroutine may use it.
type credentials struct {
	client  *consulclient.Client
	native  *dependency.ClientSet // consul-template's client, which all queries use
	queries *queries
	logger  *slog.Logger

	reloading sync.Mutex // of reload
	connector disk.Reader[struct{}]
	behind    bool // native has other credentials than client

	mu      sync.Mutex // never held while a file is read
	problem Problem    // why the files can't be used; its Message is empty if they can
}

func newCredentials(client *consulclient.Client, queries *queries, logger *slog.Logger) (*credentials, error) {
	c := &credentials{client: client, native: dependency.NewClientSet(), queries: queries, logger: logger}
	return c, c.connect(context.Background())
}

// connect gives consul-template a client with the newest credentials. It reads the files of
// the certificates itself, so it may stall.
func (c *credentials) connect(ctx context.Context) error {
	config := c.client.Config()
	_, err := c.connector.Read(ctx, func() (struct{}, error) {
		return struct{}{}, c.native.CreateConsulClient(clientInput(&config))
	})
	if err != nil {
		return fmt.Errorf("make a Consul client: %w", err)
	}
	return nil
}

// reload reads the files again. If they have changed, all queries are sent again with the
// new credentials. If they can't be used, the former credentials stay in use. It waits some
// seconds at most for a file system that does not answer.
func (c *credentials) reload(ctx context.Context) error {
	c.reloading.Lock()
	defer c.reloading.Unlock()
	changed, err := c.client.Reload(ctx)
	c.behind = c.behind || changed
	used := err == nil && c.behind
	if used {
		err = c.connect(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.note(err)
	if err == nil && used {
		c.behind = false
		c.logger.Info("credentials for Consul have changed and are used from now on", "address", c.client.Address())
		c.queries.renewAll()
	}
	return err
}

// note stores the result of reload as the problem, and logs it if it is new.
func (c *credentials) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.problem = Problem{}
		return
	}
	if message := "they can't be used: " + err.Error() + "; the former ones are used"; message != c.problem.Message {
		c.logger.Warn("credentials for Consul can't be used", "error", err)
		c.problem = Problem{Credentials: true, Message: message, Since: time.Now()}
	}
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
