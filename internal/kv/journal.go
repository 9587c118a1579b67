package kv

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// MaxJournal is how many records a journal keeps. The oldest ones go first.
const MaxJournal = 200

// maxPruned is how many old records a write removes: a transaction has room for few.
const maxPruned = 16

// Record is a command in a journal. A journal is for documents that have no history of their own,
// because one command changes many of them.
type Record struct {
	Who  Who             // who gave the command
	When time.Time       // by the clock of the writer's host
	Kind string          // of the Change
	Why  string          // of the Change
	What json.RawMessage // of the Change: what the command did
}

// storedRecord is a Record as it is in Consul.
type storedRecord struct {
	Who  Who             `json:"who"`
	When time.Time       `json:"when"`
	Kind string          `json:"kind"`
	Why  string          `json:"why,omitempty"`
	What json.RawMessage `json:"what,omitempty"`
}

// Journal returns the commands in a journal, the newest first.
func (s *Store) Journal(ctx context.Context, name string) ([]Record, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	pairs, err := s.pairs(ctx, s.entriesKey(name))
	if err != nil {
		return nil, err
	}
	// Consul's own order, because the clocks of the writers may differ.
	slices.SortFunc(pairs, func(a, b *api.KVPair) int { return cmp.Compare(b.CreateIndex, a.CreateIndex) })
	records := make([]Record, 0, len(pairs))
	for _, p := range pairs {
		var w storedRecord
		if err := Decode(p.Value, &w); err != nil {
			return nil, fmt.Errorf("record %q in Consul: %w", p.Key, err)
		}
		records = append(records, Record(w))
	}
	return records, nil
}

// enter returns the operations that add a record to a journal, and remove old ones. Commands at
// the same time don't disturb each other: each has a key of its own.
func (s *Store) enter(ctx context.Context, name string, r Record) (api.TxnOps, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	begin := s.entriesKey(name)
	keys, err := s.keys(ctx, begin)
	var denied *PermissionError
	if err != nil && !errors.As(err, &denied) { // a token that can't read can't write either, and Consul will say so
		return nil, err
	}
	var value bytes.Buffer
	encoder := json.NewEncoder(&value)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(storedRecord(r)); err != nil {
		return nil, err
	}
	key := begin + r.When.UTC().Format("20060102T150405.000") + "-" + strings.ToLower(rand.Text()[:8])
	ops := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: key, Value: value.Bytes()}}}
	for n := 0; n < min(len(keys)+1-MaxJournal, maxPruned); n++ { // the keys are sorted
		ops = append(ops, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: keys[n]}})
	}
	return ops, nil
}
