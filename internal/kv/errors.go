package kv

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"
)

// ConflictError is the error of a write whose document was changed after it was read.
type ConflictError struct {
	Read   Document // as the writer had read it
	Stored Document // as Consul has it now; it may be gone
	By     *Entry   // who changed it last; nil if that was not written with lbctl
}

func (e *ConflictError) Error() string {
	what := "changed"
	switch {
	case !e.Stored.Exists():
		what = "deleted"
	case !e.Read.Exists():
		what = "created"
	}
	by := "without lbctl"
	if e.By != nil {
		by = e.By.By()
	}
	return fmt.Sprintf("document %q was %s meanwhile, %s: nothing was written", e.Read.Name, what, by)
}

// PermissionError is the error if Consul's ACLs don't let the token read or write a key.
type PermissionError struct {
	Address string // Consul's
	Action  string // "read", "list" or "write"
	Key     string
	Rule    string // the rule that the token wants, in Consul's language
	Reason  string // what Consul said; empty if it only left keys out
}

func (e *PermissionError) Error() string {
	text := fmt.Sprintf("Consul at %s does not let this token %s %q", e.Address, e.Action, e.Key)
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	return text + ": the token wants the rule " + e.Rule
}

// explain returns the meaning of a failed request about a key.
func (s *Store) explain(action, key string, err error) error {
	var answer api.StatusError
	if errors.As(err, &answer) && answer.Code == http.StatusForbidden && strings.Contains(answer.Body, "lacks permission") {
		return s.denied(action, key, answer.Body)
	}
	return fmt.Errorf("%s %q: %s", action, key, s.client.Explain(err))
}

func (s *Store) denied(action, key, reason string) error {
	right := "read"
	if action == "write" {
		right = "write"
	}
	return &PermissionError{
		Address: s.client.Address(), Action: action, Key: key,
		Rule: s.rule(key, right), Reason: strings.Join(strings.Fields(reason), " "),
	}
}

// rule returns the ACL rule for all keys like key: key_prefix "lb/" { policy = "write" }.
func (s *Store) rule(key, right string) string {
	for _, prefix := range []string{PolicyPrefix(s.prefix), AccessPrefix(s.prefix), historyPrefix(s.prefix)} {
		if strings.HasPrefix(key, prefix) {
			key = prefix
		}
	}
	return fmt.Sprintf("key_prefix %q { policy = %q }", key, right)
}
