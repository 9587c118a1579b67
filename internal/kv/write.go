package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Consul's limits for a transaction. MaxEdits documents fit into the first: each has its own
// operation, that of its history entry, and removals of old entries.
const (
	maxOperations = 128
	// MaxTransaction is how many bytes the documents of one Write can have together, with what
	// they replace, in base64.
	MaxTransaction = 512 << 10
	// MaxEdits is how many documents one Write can change.
	MaxEdits = 32
)

// Change says what is recorded of a write.
type Change struct {
	Kind string // "set", "edit", "apply", "delete" ...: what the operator did
	Why  string // the operator's reason, may be empty
	// Journal is the name of the journal that gets a record of the write; "" for none. What is
	// what the record says besides.
	Journal string
	What    json.RawMessage
}

// Edit is one document's part of a write.
type Edit struct {
	// Before is the document that Read or List returned. The write fails if it has been
	// changed since.
	Before Document
	// Value is the new document, in JSON; nil deletes it.
	Value []byte
	// Unrecorded keeps the document out of the history. It is for documents that themselves
	// say who changed them, when and why, or that a journal tells about.
	Unrecorded bool
}

// Write changes up to MaxEdits documents, all of them or none. Its error is a *ConflictError
// if one of them has been changed since it was read, and a *PermissionError if the token
// has not the right to write it. Documents may have MaxDocument bytes each, but several
// large ones don't fit into one transaction.
func (s *Store) Write(ctx context.Context, change Change, edits ...Edit) error {
	if len(edits) == 0 || len(edits) > MaxEdits {
		return fmt.Errorf("write %d documents at once, want 1 to %d", len(edits), MaxEdits)
	}
	for _, edit := range edits {
		if edit.Value != nil && !json.Valid(edit.Value) {
			return fmt.Errorf("write document %q: it is not JSON", edit.Before.Name)
		}
	}
	return s.write(ctx, change, edits)
}

// write is Write for values that need not be JSON: Undo also brings back what somebody wrote
// without lbctl.
func (s *Store) write(ctx context.Context, change Change, edits []Edit) error {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	var who Who
	recorded := change.Journal != "" || slices.ContainsFunc(edits, func(e Edit) bool { return !e.Unrecorded })
	if recorded {
		var err error
		if who, err = s.who(ctx); err != nil {
			return err
		}
	}
	when := time.Now().UTC().Truncate(time.Millisecond)
	var ops api.TxnOps
	for _, edit := range edits {
		if err := check(edit); err != nil {
			return err
		}
		ops = append(ops, &api.TxnOp{KV: s.operation(edit)})
		if edit.Unrecorded {
			continue
		}
		entry, err := s.record(ctx, edit, Entry{Who: who, When: when, Kind: change.Kind, Why: change.Why})
		if err != nil {
			return err
		}
		ops = append(ops, entry...)
	}
	if change.Journal != "" {
		record, err := s.enter(ctx, change.Journal, Record{Who: who, When: when, Kind: change.Kind, Why: change.Why, What: change.What})
		if err != nil {
			return err
		}
		ops = append(ops, record...)
	}
	return s.commit(ctx, edits, ops)
}

func check(edit Edit) error {
	name := edit.Before.Name
	if err := checkName(name); err != nil {
		return err
	}
	if edit.Value == nil && !edit.Before.Exists() {
		return fmt.Errorf("delete document %q: there is none", name)
	}
	if n := len(edit.Value); n > MaxDocument {
		return fmt.Errorf("write document %q: it has %d bytes, want at most %d", name, n, MaxDocument)
	}
	if n := len(edit.Before.Value); n > MaxDocument && !edit.Unrecorded {
		return fmt.Errorf("write document %q: the one in Consul has %d bytes, more than %d, so the history can't keep it: remove it first, with Consul's own command", name, n, MaxDocument)
	}
	return nil
}

func (s *Store) operation(edit Edit) *api.KVTxnOp {
	op := &api.KVTxnOp{Verb: api.KVCAS, Key: s.Key(edit.Before.Name), Value: edit.Value, Index: edit.Before.Index}
	if edit.Value == nil {
		op.Verb = api.KVDeleteCAS
	}
	return op
}

// commit runs the transaction, and finds out why Consul refuses it.
func (s *Store) commit(ctx context.Context, edits []Edit, ops api.TxnOps) error {
	size := 0
	for _, op := range ops {
		size += len(op.KV.Value)*4/3 + len(op.KV.Key) + 100 // as Consul gets it: base64 in JSON
	}
	if len(ops) > maxOperations || size > MaxTransaction {
		return fmt.Errorf("write %d documents at once: they have %d bytes with their history, in %d operations, want at most %d in %d: write fewer documents at once",
			len(edits), size, len(ops), MaxTransaction, maxOperations)
	}
	ok, response, _, err := s.client.API().Txn().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return s.explain("write", s.Key(edits[0].Before.Name), err)
	}
	if ok {
		return nil
	}
	var reasons []string
	for _, e := range response.Errors {
		var key string
		if e.OpIndex >= 0 && e.OpIndex < len(ops) {
			key = ops[e.OpIndex].KV.Key
		}
		if strings.Contains(e.What, "Permission denied") {
			return s.denied("write", key, e.What)
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", key, strings.TrimSpace(e.What)))
	}
	var conflicts []error
	for _, edit := range edits {
		stored, err := s.Read(ctx, edit.Before.Name)
		if err != nil {
			return fmt.Errorf("%w (Consul refused the write: %s)", err, strings.Join(reasons, "; "))
		}
		if stored.Index != edit.Before.Index {
			conflicts = append(conflicts, s.conflict(ctx, edit.Before, stored))
		}
	}
	if len(conflicts) > 0 {
		return errors.Join(conflicts...)
	}
	return fmt.Errorf("write to Consul at %s: it refuses: %s", s.client.Address(), strings.Join(reasons, "; "))
}

// conflict describes who changed a document meanwhile, if that is known.
func (s *Store) conflict(ctx context.Context, read, stored Document) *ConflictError {
	c := &ConflictError{Read: read, Stored: stored}
	entries, err := s.History(ctx, read.Name)
	if err != nil {
		return c
	}
	for _, e := range entries { // others may have written since stored was read
		if e.Index == stored.Index || !stored.Exists() && e.Deleted {
			c.By = &e
			break
		}
	}
	return c
}
