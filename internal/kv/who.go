package kv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Who is who made a write.
type Who struct {
	// User is the operating system's user and the host: "alice@ops-1". The writer's host
	// says so; with ACLs, Accessor is what Consul has checked.
	User string `json:"user"`
	// Accessor is the accessor id of the Consul token, empty without ACLs. It is no secret.
	Accessor string `json:"accessor,omitempty"`
	// Description is the token's, empty without ACLs.
	Description string `json:"description,omitempty"`
}

// String returns "alice@ops-1", with ACLs also the token's description or accessor id.
func (w Who) String() string {
	switch {
	case w.Accessor == "":
		return w.User
	case w.Description != "":
		return fmt.Sprintf("%s with token %q", w.User, w.Description)
	}
	return w.User + " with token " + w.Accessor
}

// who asks Consul for the token's accessor id.
func (s *Store) who(ctx context.Context) (Who, error) {
	w := Who{User: s.user}
	self, _, err := s.client.API().ACL().TokenReadSelf((&api.QueryOptions{}).WithContext(ctx))
	var answer api.StatusError
	if errors.As(err, &answer) && strings.Contains(answer.Body, "ACL support disabled") {
		return w, nil
	}
	if err != nil {
		return w, fmt.Errorf("find out whose token it is: %s", s.client.Explain(err))
	}
	w.Accessor, w.Description = self.AccessorID, self.Description
	return w, nil
}

// Who returns whom a write is recorded for.
func (s *Store) Who(ctx context.Context) (Who, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.who(ctx)
}

func localUser() string {
	name := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return name + "@" + host
}
