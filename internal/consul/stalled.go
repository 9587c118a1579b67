package consul

import (
	"context"

	"github.com/hashicorp/consul/api"
)

const (
	// lookRound is how many checks it takes to look at every service: 24 seconds. A
	// stalled query gets one more check to catch up, and so is sent again within
	// thirty seconds.
	lookRound = 12
	// nothing is a filter that no instance passes. Consul's answer has its index all
	// the same.
	nothing = `Node.Node == ""`
)

// catalogQuery is what consul-template calls the query for the list of services.
const catalogQuery = "catalog.services"

// behind is a query whose last answer has the index heard, while Consul is at the index
// news already. By the next check, an answer that is on its way has arrived.
type behind struct{ heard, news uint64 }

// findStalled asks directly about some of the services and the list of them, each in
// its turn. It finds what blocking queries don't show: that one has stalled, so that its
// connection is open and no answer comes, and that answers are filtered now. A token that
// becomes too weak ends no query.
func (m *monitor) findStalled(ctx context.Context) {
	for name, b := range m.behind {
		if q := m.queries.find(name); q != nil && q.stalled(b.heard, b.news) {
			m.logger.Warn("a query has stalled and is sent again", "query", name)
		}
	}
	clear(m.behind)
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	whole := true // the first question has no filter: with one, Consul may not say that it filters by ACLs
	for _, name := range m.next() {
		options := (&api.QueryOptions{}).WithContext(ctx)
		var meta *api.QueryMeta
		var err error
		if service, ok := serviceOf(name); ok {
			if !whole {
				options.Filter = nothing
			}
			whole = false
			_, meta, err = m.client.API().Health().Service(service, "", false, options)
			if err == nil && meta.ResultsFilteredByACLs && m.suspect == "" {
				m.suspect = service
			}
		} else {
			var listed map[string][]string
			listed, meta, err = m.client.API().Catalog().Services(options)
			if err == nil && m.queries.hasList(listed) {
				continue // a node's check that goes raises the list's index, but answers no query
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // the blocking query fails too, and reports it
		}
		if q := m.queries.find(name); q != nil {
			if heard, ok := q.heard(); ok && heard != meta.LastIndex {
				m.behind[name] = behind{heard, meta.LastIndex}
			}
		}
	}
}

// next is the queries whose turn it is to be looked at.
func (m *monitor) next() []string {
	names := []string{catalogQuery}
	for _, e := range m.table.Entries() {
		if len(e.Instances) > 0 {
			names = append(names, queryOf(e.Name))
		}
	}
	if len(names) == 1 {
		names = append(names, queryOf("consul")) // every token that can read anything can read it
	}
	turn := make([]string, (len(names)+lookRound-1)/lookRound)
	for n := range turn {
		m.turn++
		turn[n] = names[m.turn%len(names)]
	}
	return turn
}
