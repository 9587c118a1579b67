package consul

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul/api"

	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
)

// serviceQuery asks Consul for all instances of a service. Its data is an
// endpoints.Service. consul-template's own query for instances can't be cancelled, and it
// keeps all of Consul's data of each instance, which with thousands of instances would be
// most of lbctl's memory.
type serviceQuery struct {
	service  string
	name     string
	reserved metadata.Reserved
	// unrelated: according to the last answer, the service doesn't ask to be balanced.
	unrelated *atomic.Bool
}

func newServiceQuery(service string, reserved metadata.Reserved) *serviceQuery {
	return &serviceQuery{service, queryOf(service), reserved, new(atomic.Bool)}
}

// Fetch is FetchContext without cancellation.
func (q *serviceQuery) Fetch(clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	return q.FetchContext(context.Background(), clients, opts)
}

// FetchContext returns an endpoints.Service, the zero one if Consul knows no instance. If
// Consul's answer can't be read, it returns an error instead of panicking.
func (q *serviceQuery) FetchContext(ctx context.Context, clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	entries, meta, err := clients.Consul().Health().Service(q.service, "", false, opts.ToConsulOpts().WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", q, err)
	}
	service, err := q.parse(entries)
	if err != nil {
		return nil, nil, err
	}
	q.unrelated.Store(!asks(service))
	return service, &dependency.ResponseMetadata{LastIndex: meta.LastIndex, LastContact: meta.LastContact}, nil
}

func (q *serviceQuery) parse(entries []*api.ServiceEntry) (service endpoints.Service, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: Consul's answer can't be read: %v", q, p)
		}
	}()
	return metadata.Parse(q.service, entries, q.reserved), nil
}

// asks reports whether a service asks to be balanced, even with invalid metadata.
func asks(s endpoints.Service) bool { return s.Name != "" && (s.Protocol != "" || !s.OK) }

// CanShare tells consul-template that several views may share the query.
func (q *serviceQuery) CanShare() bool { return true }

// Stop does nothing, since FetchContext ends with its context.
func (q *serviceQuery) Stop() {}

// Type tells consul-template that Consul answers the query.
func (q *serviceQuery) Type() dependency.Type { return dependency.TypeConsul }

// String returns the query's name.
func (q *serviceQuery) String() string { return q.name }

const (
	queryPrefix = "instances("
	querySuffix = ")"
)

// queryOf returns the name of the query for all instances of a service. None of
// consul-template's own queries has such a name.
func queryOf(service string) string { return queryPrefix + service + querySuffix }

// serviceOf returns the service of a serviceQuery with the name; false if the name is not a
// serviceQuery's.
func serviceOf(query string) (string, bool) {
	name, ok := strings.CutPrefix(query, queryPrefix)
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, querySuffix)
	return name, ok
}
