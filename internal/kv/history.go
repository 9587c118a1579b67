package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"
)

// MaxHistory is how many entries the history keeps for a document. The oldest ones go first.
// A deleted document keeps its entries, so that Undo brings it back.
const MaxHistory = 20

// Entry is one write of a document, as the history has it.
type Entry struct {
	Number int       // of the document's writes, from 1
	Who    Who       // who wrote it
	When   time.Time // by the clock of the writer's host
	Kind   string    // of the Change
	Why    string    // of the Change
	// Deleted is true if the write deleted the document.
	Deleted bool
	// Before is the document before the write; its Index is 0 if there was none.
	Before Document
	// Index is Consul's index of the write. The document has the same one until its next change.
	Index uint64
}

// By says who made the write, when and why.
func (e Entry) By() string {
	text := fmt.Sprintf("by %s at %s (%s)", e.Who, e.When.Local().Format(time.DateTime), e.Kind)
	if e.Why != "" {
		text += fmt.Sprintf(": %q", e.Why)
	}
	return text
}

// stored is an Entry as it is in Consul.
type stored struct {
	Who  Who       `json:"who"`
	When time.Time `json:"when"`
	Kind string    `json:"kind"`
	Why  string    `json:"why,omitempty"`
	// Deleted is true if the write deleted the document.
	Deleted bool `json:"deleted,omitempty"`
	// One of these is the document before the write; both are absent if there was none.
	Before       *string `json:"before,omitempty"`
	BeforeBase64 []byte  `json:"before_base64,omitempty"` // of a document that is no text
	BeforeIndex  uint64  `json:"before_index,omitempty"`
}

// ErrNoHistory is the error of Undo for a document without entries in the history.
var ErrNoHistory = errors.New("the history has no write of it")

// History returns the recorded writes of a document, the newest first.
func (s *Store) History(ctx context.Context, name string) ([]Entry, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	pairs, err := s.entries(ctx, name)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(pairs))
	for _, p := range slices.Backward(pairs) {
		entry, err := readEntry(name, p)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Latest returns the newest recorded write of each of the documents, by name. One without
// entries in the history is not in the result.
func (s *Store) Latest(ctx context.Context, documents []Document) (map[string]Entry, error) {
	keys, err := s.keys(ctx, historyPrefix(s.prefix))
	if err != nil {
		return nil, err
	}
	newest := map[string]string{} // key by document; the keys are sorted
	for _, key := range keys {
		if entryNumber(key) > 0 {
			name := strings.TrimPrefix(key[:strings.LastIndexByte(key, '/')], historyPrefix(s.prefix))
			newest[name] = key
		}
	}
	entries := make([]*Entry, len(documents))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(latestAtOnce)
	for n, d := range documents {
		if key := newest[d.Name]; key != "" {
			group.Go(func() error {
				e, err := s.entry(ctx, d.Name, key)
				entries[n] = e
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	latest := map[string]Entry{}
	for n, e := range entries {
		if e != nil {
			latest[documents[n].Name] = *e
		}
	}
	return latest, nil
}

// latestAtOnce is how many requests Latest has under way.
const latestAtOnce = 8

// entry reads an entry; nil if it is gone.
func (s *Store) entry(ctx context.Context, name, key string) (*Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pair, _, err := s.client.API().KV().Get(key, consistent(ctx))
	if err != nil {
		return nil, s.explain("read", key, err)
	}
	if pair == nil {
		return nil, nil
	}
	e, err := readEntry(name, pair)
	return &e, err
}

// UndoPlan is what Undo is to do.
type UndoPlan struct {
	Entry Entry    // the write that it takes back, with those after it
	Later []Entry  // the writes after Entry, the newest first
	Now   Document // what it replaces, with Entry.Before
}

// PlanUndo finds the write that Undo is to take back: the one with the number, or the last one
// for 0. It refuses if the document was changed since the last write without lbctl, because the
// history does not have what that change replaced.
func (s *Store) PlanUndo(ctx context.Context, name string, number int) (UndoPlan, error) {
	document, err := s.Read(ctx, name)
	if err != nil {
		return UndoPlan{}, err
	}
	entries, err := s.History(ctx, name)
	if err != nil {
		return UndoPlan{}, err
	}
	if len(entries) == 0 {
		return UndoPlan{}, fmt.Errorf("undo the last write of document %q: %w", name, ErrNoHistory)
	}
	last := entries[0]
	if document.Exists() == last.Deleted || document.Exists() && document.Index != last.Index {
		return UndoPlan{}, fmt.Errorf("undo the last write of document %q: it was changed without lbctl since that write (%s), want a document that lbctl wrote last", name, last.By())
	}
	if number == 0 {
		return UndoPlan{Entry: last, Now: document}, nil
	}
	for n, e := range entries {
		if e.Number == number {
			return UndoPlan{Entry: e, Later: entries[:n], Now: document}, nil
		}
	}
	return UndoPlan{}, fmt.Errorf("undo write %d of document %q: the history has the writes %d to %d", number, name, entries[len(entries)-1].Number, last.Number)
}

// Undo writes the document as it was before the write of a plan, or deletes it if there was
// none. It is a write too, so a second Undo takes back the first. Its error is a *ConflictError
// if the document has been changed since the plan was made.
func (s *Store) Undo(ctx context.Context, plan UndoPlan, why string) error {
	edit := Edit{Before: plan.Now}
	if plan.Entry.Before.Exists() {
		edit.Value = append([]byte{}, plan.Entry.Before.Value...) // not nil, even if it is empty
	}
	if edit.Value == nil && !plan.Now.Exists() {
		return nil // it was and is deleted
	}
	return s.write(ctx, Change{Kind: "undo", Why: why}, []Edit{edit})
}

// record returns the operations that add an entry for the edit, and that remove
// the oldest entries. The entry's number is free unless another write comes first, and then
// that write has changed the document too.
func (s *Store) record(ctx context.Context, edit Edit, e Entry) (api.TxnOps, error) {
	before := edit.Before
	pairs, err := s.entries(ctx, before.Name)
	if err != nil {
		return nil, err
	}
	number := 1
	if len(pairs) > 0 {
		number = entryNumber(pairs[len(pairs)-1].Key) + 1
	}
	w := stored{Who: e.Who, When: e.When, Kind: e.Kind, Why: e.Why, Deleted: edit.Value == nil, BeforeIndex: before.Index}
	if text := string(before.Value); utf8.ValidString(text) {
		if before.Exists() {
			w.Before = &text
		}
	} else {
		w.BeforeBase64 = before.Value
	}
	var value bytes.Buffer
	encoder := json.NewEncoder(&value)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(w); err != nil {
		return nil, err
	}
	ops := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: s.entriesKey(before.Name) + fmt.Sprintf("%08d", number), Value: value.Bytes()}}}
	for len(pairs) >= MaxHistory {
		ops = append(ops, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: pairs[0].Key}})
		pairs = pairs[1:]
	}
	return ops, nil
}

// entries returns the keys of a document's history, the oldest first.
func (s *Store) entries(ctx context.Context, name string) (api.KVPairs, error) {
	begin := s.entriesKey(name)
	pairs, err := s.pairs(ctx, begin)
	return slices.DeleteFunc(pairs, func(p *api.KVPair) bool {
		return entryNumber(p.Key) == 0 || strings.Contains(strings.TrimPrefix(p.Key, begin), "/") // of another document
	}), err
}

func (s *Store) entriesKey(name string) string { return historyPrefix(s.prefix) + name + "/" }

// entryNumber returns the number at the end of an entry's key; 0 if there is none.
func entryNumber(key string) int {
	last := key[strings.LastIndexByte(key, '/')+1:]
	n, err := strconv.Atoi(last)
	if err != nil || n < 1 || len(last) != 8 {
		return 0
	}
	return n
}

func readEntry(name string, p *api.KVPair) (Entry, error) {
	var w stored
	if err := Decode(p.Value, &w); err != nil {
		return Entry{}, fmt.Errorf("history entry %q in Consul: %w", p.Key, err)
	}
	before := Document{Name: name, Value: w.BeforeBase64, Index: w.BeforeIndex}
	if w.Before != nil {
		before.Value = []byte(*w.Before)
	}
	return Entry{
		Number: entryNumber(p.Key), Who: w.Who, When: w.When, Kind: w.Kind, Why: w.Why, Deleted: w.Deleted,
		Before: before, Index: p.ModifyIndex,
	}, nil
}
