package cli

import (
	"encoding/json"
	"time"

	"lbctl/internal/access"
)

// accessJournal is the journal of the commands that change who may use the balancer: rules about
// networks are spread over many documents, and a key that is revoked has none.
const accessJournal = "access/commands"

// maxJournalRules is how many rules a record in the journal names. A command can have a hundred
// thousand.
const maxJournalRules = 20

// accessCommand is what a record in the journal says of a command.
type accessCommand struct {
	Added   int           `json:"added,omitempty"`   // rules that it added or replaced
	Removed int           `json:"removed,omitempty"` // rules that it removed
	Rules   []journalRule `json:"rules,omitempty"`   // the first of both
	Key     *journalKeyed `json:"key,omitempty"`
}

// journalRule is a rule about a network that a command added or removed.
type journalRule struct {
	Network string    `json:"network"`
	Access  string    `json:"access"`            // "denied" or "allowed"
	Service string    `json:"service,omitempty"` // absent: every service
	Until   time.Time `json:"until,omitzero"`    // absent: for ever
	Removed bool      `json:"removed,omitempty"`
}

// journalKeyed is a key that a command created or revoked.
type journalKeyed struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind,omitempty"`     // "key" or "basic"; absent: its document could not be read
	Services []string  `json:"services,omitempty"` // absent: every service
	Until    time.Time `json:"until,omitzero"`     // absent: for ever
}

// journalNetworks returns what the journal says of a change of the rules about networks.
func journalNetworks(c changedRules) (json.RawMessage, error) {
	gone := c.gone()
	said := accessCommand{Added: len(c.Added), Removed: len(gone)}
	for _, part := range []struct {
		rules   []shownRule
		removed bool
	}{{c.Added, false}, {gone, true}} {
		for _, r := range part.rules[:min(len(part.rules), maxJournalRules-len(said.Rules))] {
			said.Rules = append(said.Rules, journalRule{r.Network, r.Access, r.Service, r.Until, part.removed})
		}
	}
	return json.Marshal(said)
}

// journalKey returns what the journal says of a key.
func journalKey(k *access.Key) (json.RawMessage, error) {
	return json.Marshal(accessCommand{Key: &journalKeyed{k.Name, k.Kind, k.Services, k.Until}})
}
