// Package kv reads and writes the operator's documents in Consul's KV store.
//
//	store, err := kv.Open(nil, kv.DefaultPrefix)
//	before, err := store.Read(ctx, "service/cart")
//	err = store.Write(ctx, kv.Change{Kind: "set", Why: "slow disk"}, kv.Edit{Before: before, Value: value})
//	plan, err := store.PlanUndo(ctx, "service/cart", 0)
//	err = store.Undo(ctx, plan, "it did not help")
//
// A write takes effect only if nobody has changed the documents since they were read. It
// records in the history, in the same transaction, who made it, when, why, and what each
// document was before. All requests go straight to Consul, with the caller's token.
package kv

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
)

// DefaultPrefix is the default of the prefix of all keys.
const DefaultPrefix = "lb"

// MaxDocument is how many bytes a document may have. A transaction has a document twice, as it
// will be and, in the history, as it was, and Consul's limit for a transaction is 512 KiB.
const MaxDocument = 128 << 10

// requestTimeout is how long Consul may take to answer one request.
const requestTimeout = 15 * time.Second

// AccessNames begins the names of the documents about who may use the balancer. They have a
// prefix of their own in Consul, because they may be large: a query for the other documents
// must not return them at each change.
const AccessNames = "access/"

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*$`)
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9_.:-]+(?:/[A-Za-z0-9_.:-]+)*$`)
)

// CheckPrefix returns an error if a text can't be the prefix of the keys: it has up to 100
// letters, digits, "-", "_", and "." or "/" between them.
func CheckPrefix(prefix string) error {
	if len(prefix) > 100 || !prefixPattern.MatchString(prefix) {
		return fmt.Errorf(`want up to 100 letters, digits, "-" and "_", with "." or "/" only between them, such as %q`, DefaultPrefix)
	}
	return nil
}

// PolicyPrefix returns the prefix of the keys of all documents except those about access, for
// a query: "lb/".
func PolicyPrefix(prefix string) string { return prefix + "/" }

// AccessPrefix returns the prefix of the keys of the documents about access, for a query:
// "lb-access/".
func AccessPrefix(prefix string) string { return prefix + "-access/" }

func historyPrefix(prefix string) string { return prefix + "-history/" }

// Document is a document in Consul at one moment.
type Document struct {
	// Name is "default", "service/cart" or "access/key/shop".
	Name string
	// Value is JSON, unless somebody wrote it without lbctl.
	Value []byte
	// Index is Consul's ModifyIndex. It is 0 if there is no such document.
	Index uint64
}

// Exists reports whether there was such a document.
func (d Document) Exists() bool { return d.Index > 0 }

// Store is the documents below one prefix. Any goroutine may use it.
type Store struct {
	client *consulclient.Client
	prefix string
	user   string // user@host, for the history
}

// Open makes a Store. It does not connect. config says how to reach Consul; nil means the
// CONSUL_ environment variables. prefix begins all keys, see CheckPrefix.
func Open(config *api.Config, prefix string) (*Store, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, fmt.Errorf("prefix of keys %q: %w", prefix, err)
	}
	client, err := consulclient.New(config)
	if err != nil {
		return nil, err
	}
	return &Store{client: client, prefix: prefix, user: localUser()}, nil
}

// Key returns the key of a document: "lb/service/cart", or "lb-access/key/shop".
func (s *Store) Key(name string) string {
	if rest, ok := strings.CutPrefix(name, AccessNames); ok {
		return AccessPrefix(s.prefix) + rest
	}
	return PolicyPrefix(s.prefix) + name
}

// name is the inverse of Key.
func (s *Store) name(key string) string {
	if rest, ok := strings.CutPrefix(key, AccessPrefix(s.prefix)); ok {
		return AccessNames + rest
	}
	return strings.TrimPrefix(key, PolicyPrefix(s.prefix))
}

func checkName(name string) error {
	if len(name) > 400 || !namePattern.MatchString(name) {
		return fmt.Errorf(`document %q can't be in Consul, want up to 400 letters, digits, "-", "_", "." and ":", with "/" only between them`, name)
	}
	return nil
}

// Read returns a document. It is no error if there is none: see Document.Exists.
func (s *Store) Read(ctx context.Context, name string) (Document, error) {
	d := Document{Name: name}
	if err := checkName(name); err != nil {
		return d, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pair, _, err := s.client.API().KV().Get(s.Key(name), consistent(ctx))
	if err != nil {
		return d, s.explain("read", s.Key(name), err)
	}
	if pair != nil {
		d.Value, d.Index = pair.Value, pair.ModifyIndex
	}
	return d, nil
}

// List returns the documents whose names begin with a text, sorted by key: all services'
// for "service/", those about access for "access/", all others for "".
func (s *Store) List(ctx context.Context, begin string) ([]Document, error) {
	key := s.Key(begin)
	pairs, err := s.pairs(ctx, key)
	documents := make([]Document, len(pairs))
	for n, p := range pairs {
		documents[n] = Document{Name: s.name(p.Key), Value: p.Value, Index: p.ModifyIndex}
	}
	return documents, err
}

// pairs returns all keys that begin with a text. That the token can't read all of them is an error.
func (s *Store) pairs(ctx context.Context, begin string) (api.KVPairs, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pairs, meta, err := s.client.API().KV().List(begin, consistent(ctx))
	if err != nil {
		return nil, s.explain("list", begin, err)
	}
	return pairs, s.complete(ctx, begin, len(pairs), meta)
}

// complete returns an error if an answer with n of the keys that begin with a text may leave some
// out. Consul says so only if there are such keys, and not to clients without a token. But it
// refuses a single key, also if there is no such key.
func (s *Store) complete(ctx context.Context, begin string, n int, meta *api.QueryMeta) error {
	hidden := meta.ResultsFilteredByACLs
	if !hidden && (n == 0 || s.client.Config().Token == "") {
		_, _, err := s.client.API().KV().Get(begin, consistent(ctx))
		if hidden = consulclient.IsRefusal(err); !hidden && err != nil {
			return s.explain("list", begin, err)
		}
	}
	if hidden {
		return &PermissionError{Address: s.client.Address(), Action: "list", Key: begin, Rule: s.rule(begin, "read")}
	}
	return nil
}

// Index returns an index of Consul that is at least that of the newest write of the documents whose
// names begin with a text. If none of them was written for some minutes, it may be that of a write
// of another key.
func (s *Store) Index(ctx context.Context, begin string) (uint64, error) {
	_, index, err := s.keysAt(ctx, s.Key(begin))
	return index, err
}

// keys returns the names of all keys that begin with a text, sorted.
func (s *Store) keys(ctx context.Context, begin string) ([]string, error) {
	keys, _, err := s.keysAt(ctx, begin)
	return keys, err
}

// keysAt is keys with Consul's index of the answer.
func (s *Store) keysAt(ctx context.Context, begin string) (keys []string, index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	keys, meta, err := s.client.API().KV().Keys(begin, "", consistent(ctx))
	if err != nil {
		return nil, 0, s.explain("list", begin, err)
	}
	return keys, meta.LastIndex, s.complete(ctx, begin, len(keys), meta)
}

// consistent has the leader answer after it has made sure that it still leads.
func consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}
