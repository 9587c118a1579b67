package consul

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/consul-template/dependency"

	"lbctl/internal/metadata"
)

// serviceQuery asks Consul for all instances of a service; its data is an
// endpoints.Service. consul-template has such a query, too, but that one can't be
// given up before Consul answers, and keeps everything that Consul says of every
// instance, which with thousands of them is most of what lbctl would remember.
type serviceQuery struct {
	service  string
	name     string
	reserved []int // ports that lb-port can't have
}

func newServiceQuery(service string, reserved []int) *serviceQuery {
	return &serviceQuery{service, queryOf(service), reserved}
}

// Fetch is FetchContext that nothing ends.
func (q *serviceQuery) Fetch(clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	return q.FetchContext(context.Background(), clients, opts)
}

// FetchContext gives an endpoints.Service, which is the zero one when Consul knows
// no instance.
func (q *serviceQuery) FetchContext(ctx context.Context, clients *dependency.ClientSet, opts *dependency.QueryOptions) (any, *dependency.ResponseMetadata, error) {
	entries, meta, err := clients.Consul().Health().Service(q.service, "", false, opts.ToConsulOpts().WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", q, err)
	}
	return metadata.Parse(q.service, entries, q.reserved), &dependency.ResponseMetadata{LastIndex: meta.LastIndex, LastContact: meta.LastContact}, nil
}

// CanShare says that several may ask it together, which nobody does.
func (q *serviceQuery) CanShare() bool { return true }

// Stop has nothing to do: FetchContext ends with its context.
func (q *serviceQuery) Stop() {}

// Type is that of what Consul answers.
func (q *serviceQuery) Type() dependency.Type { return dependency.TypeConsul }

// String is the query's name.
func (q *serviceQuery) String() string { return q.name }

const (
	queryPrefix = "health.service("
	querySuffix = ")"
)

// queryOf is the name of the query for all instances of a service. No query of
// consul-template has it: theirs say which statuses they are about.
func queryOf(service string) string { return queryPrefix + service + querySuffix }

// serviceOf is the service that the query of that name is about; false when it is
// no serviceQuery's.
func serviceOf(query string) (string, bool) {
	name, ok := strings.CutPrefix(query, queryPrefix)
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, querySuffix)
	return name, ok && !strings.Contains(name, "|")
}
