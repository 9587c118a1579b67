package consul

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
)

// Document is a key in Consul's KV store.
type Document struct {
	Key   string // "lb/service/cart"
	Value []byte
	Index uint64 // Consul's ModifyIndex
}

// documents are all keys with a prefix, as in one answer of Consul.
type documents struct {
	prefix string
	index  uint64 // Consul's index of the answer
	all    []Document
}

// documentsQuery asks Consul for all keys with a prefix. Its data is of type documents, sorted by
// key. consul-template's own query can't be cancelled, and it hides that ACLs leave keys out.
type documentsQuery struct {
	prefix string
	name   string
}

func newDocumentsQuery(prefix string) *documentsQuery {
	return &documentsQuery{prefix, documentsQueryOf(prefix)}
}

// Fetch is FetchContext without cancellation.
func (q *documentsQuery) Fetch(clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	return q.FetchContext(context.Background(), clients, opts)
}

// FetchContext returns documents. If
// Consul leaves keys out because of ACLs, it returns an error: keys that the token can't read
// must not look like deleted ones.
func (q *documentsQuery) FetchContext(ctx context.Context, clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	pairs, meta, err := clients.Consul().KV().List(q.prefix, opts.ToConsulOpts().WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", q, err)
	}
	if meta.ResultsFilteredByACLs {
		return nil, nil, errKeysHidden{q.prefix}
	}
	// Consul doesn't say to clients without a token that it leaves keys out, but it refuses a single key.
	if _, _, err := clients.Consul().KV().Get(q.prefix+"default", new(api.QueryOptions).WithContext(ctx)); consulclient.IsRefusal(err) {
		return nil, nil, errKeysHidden{q.prefix}
	} else if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", q, err)
	}
	found := documents{q.prefix, meta.LastIndex, make([]Document, len(pairs))}
	for n, p := range pairs {
		found.all[n] = Document{Key: p.Key, Value: p.Value, Index: p.ModifyIndex}
	}
	return found, &dependency.ResponseMetadata{LastIndex: meta.LastIndex, LastContact: meta.LastContact}, nil
}

// errKeysHidden is the error if the token can't read all keys with the prefix.
type errKeysHidden struct{ prefix string }

func (e errKeysHidden) Error() string {
	return fmt.Sprintf("the token can't read all keys below %q: it wants the rule key_prefix %q { policy = \"read\" }", e.prefix, e.prefix)
}

// CanShare tells consul-template that several views may share the query.
func (q *documentsQuery) CanShare() bool { return true }

// Stop does nothing, since FetchContext ends with its context.
func (q *documentsQuery) Stop() {}

// Type tells consul-template that Consul answers the query.
func (q *documentsQuery) Type() dependency.Type { return dependency.TypeConsul }

// String returns the query's name.
func (q *documentsQuery) String() string { return q.name }

const documentsPrefix = "documents("

// documentsQueryOf returns the name of the query for the keys with a prefix. None of
// consul-template's own queries has such a name.
func documentsQueryOf(prefix string) string { return documentsPrefix + prefix + querySuffix }

// prefixOf returns the prefix of a documentsQuery with the name; false if the name is not a
// documentsQuery's.
func prefixOf(query string) (string, bool) {
	prefix, ok := strings.CutPrefix(query, documentsPrefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(prefix, querySuffix)
}

// Documents returns the keys with a prefix of Options.Policies or Options.Documents as in Consul's last answer,
// sorted by key. known is false before there is one; refused is why there may be none soon:
// the token may not read the keys. The caller must not change the documents.
func (f *Follower) Documents(prefix string) (all []Document, known bool, refused error) {
	q := f.queries.find(documentsQueryOf(prefix))
	if q == nil {
		return nil, false, nil
	}
	data, known := f.queries.brain.Recall(q)
	found, _ := data.(documents)
	var hidden errKeysHidden
	if failing, ok := q.failing(); ok && errors.As(failing.err, &hidden) {
		refused = hidden
	}
	return found.all, known, refused
}

// DocumentsIndex returns Consul's index of the answer that Documents returns: every write of a
// key with the prefix and a lower or the same index is in it. It is 0 before there is an answer.
func (f *Follower) DocumentsIndex(prefix string) uint64 {
	q := f.queries.find(documentsQueryOf(prefix))
	if q == nil {
		return 0
	}
	data, _ := f.queries.brain.Recall(q)
	found, _ := data.(documents)
	return found.index
}
