package consul

import (
	"context"

	"github.com/hashicorp/consul/api"
)

const (
	// checkRounds is how many checks cover every service once: 24 seconds. A stalled query
	// has one more check to catch up, so it is sent again within thirty seconds.
	checkRounds = 12
	// nothing is a filter that no instance passes. Consul's answer has the index
	// nevertheless.
	nothing = `Node.Node == ""`
)

// catalogQuery is consul-template's name of the query for the list of services.
const catalogQuery = "catalog.services"

// behind has the index of a query's last answer and Consul's current index, which differs.
// If the query has not stalled, an answer arrives before the next check.
type behind struct{ answered, current uint64 }

// findStalled asks Consul directly for the index of the next queries in turn. It finds what
// a blocking query doesn't show: that the query has stalled, with an open connection and no
// answer, and that Consul now filters its answers. If a token loses its rights, blocking
// queries go on.
func (m *monitor) findStalled(ctx context.Context) {
	for name, b := range m.behind {
		if q := m.queries.find(name); q != nil && q.stalled(b.answered, b.current) {
			m.logger.Warn("a query has stalled and is sent again", "query", name)
		}
	}
	clear(m.behind)
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	whole := true // the first request has no filter: with one, Consul may not say that it filters by ACLs
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
				continue // the end of a node's check raises the list's index, but answers no query
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // the blocking query fails too, and reports it
		}
		if q := m.queries.find(name); q != nil {
			if index, ok := q.answered(); ok && index != meta.LastIndex {
				m.behind[name] = behind{index, meta.LastIndex}
			}
		}
	}
}

// next returns the names of the queries to check now.
func (m *monitor) next() []string {
	names := []string{catalogQuery}
	for _, e := range m.table.Entries() {
		if len(e.Instances) > 0 {
			names = append(names, queryOf(e.Name))
		}
	}
	if len(names) == 1 {
		names = append(names, queryOf("consul")) // any token with any rights can read it
	}
	turn := make([]string, (len(names)+checkRounds-1)/checkRounds)
	for n := range turn {
		m.turn++
		turn[n] = names[m.turn%len(names)]
	}
	return turn
}
