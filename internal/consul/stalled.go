package consul

import (
	"context"

	"github.com/hashicorp/consul/api"
)

const (
	// lookRound is in how many checks every service is looked at: in 24 seconds,
	// so that with a check of grace a watch that has stalled is renewed within
	// thirty seconds.
	lookRound = 12
	// nothing is a filter that no instance passes: Consul says how new its answer
	// is all the same.
	nothing = `Node.Node == ""`
)

// catalogQuery is what consul-template calls the query for the list of services.
const catalogQuery = "catalog.services"

// behind is a watch that has been answered up to heard while Consul has come to
// news. What is on its way gets there by the next check.
type behind struct{ heard, news uint64 }

// findStalled asks directly about some of the services and the list of them, each in
// its turn, for what blocking queries can't tell: that one has stalled, its
// connection open and nothing coming from it, and that answers are filtered now,
// since a token that becomes too weak ends no query.
func (m *monitor) findStalled(ctx context.Context) {
	for name, b := range m.behind {
		if q := m.queries.find(name); q != nil && q.stalled(b.heard, b.news) {
			m.logger.Warn("a watch has stalled: it is asked anew", "query", name)
		}
	}
	clear(m.behind)
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	whole := true // the first: a Consul that filters by nothing first may not say that it filters by ACLs
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
				continue // a node's check that goes raises the list's index, and wakes no query
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // the watch fails, too, and says so
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
		names = append(names, queryOf("consul")) // whoever sees anything, sees that
	}
	turn := make([]string, (len(names)+lookRound-1)/lookRound)
	for n := range turn {
		m.turn++
		turn[n] = names[m.turn%len(names)]
	}
	return turn
}
