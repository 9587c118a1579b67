package consul

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"
)

// queries is the set of current queries to Consul. Any goroutine may use it.
type queries struct {
	brain *template.Brain // has the answers of all queries except service queries
	// changed fires when a query begins to fail, fails for another reason, or
	// succeeds again.
	changed chan struct{}
	changes atomic.Uint64 // how often changed was due

	mu     sync.Mutex
	byName map[string]*query
	// allGoodAt is the value of changes when no query failed.
	allGoodAt uint64
	renewal   bool      // renewAll was called, and the queries have not been sent again since
	renewedAt time.Time // when all queries were last sent again
}

func newQueries() *queries {
	return &queries{brain: template.NewBrain(), changed: make(chan struct{}, 1), byName: map[string]*query{}}
}

// add makes a query of d. It returns false if there is a query with that name.
func (s *queries) add(d dependency.Dependency) (*query, bool) {
	q := newQuery(d, func() {
		s.changes.Add(1)
		notify(s.changed)
	})
	q.wait = s.wait
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[d.String()] != nil {
		return nil, false
	}
	s.byName[d.String()] = q
	return q, true
}

func (s *queries) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}

// find returns the query with the name; nil if there is none.
func (s *queries) find(name string) *query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name]
}

// wait returns how long a query waits for a change.
func (s *queries) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return waitOf(len(s.byName))
}

// waitOf returns how long each query waits for a change, given their number.
func waitOf(queries int) time.Duration {
	if queries >= manyQueries {
		return manyWait
	}
	return queryWait
}

// renewPause returns the minimum time between two renewals of all queries, so that the
// agent never has too many: it also counts cancelled ones.
func (s *queries) renewPause() time.Duration {
	s.mu.Lock()
	n := len(s.byName)
	s.mu.Unlock()
	return waitOf(n) / time.Duration(max(1, agentQueries/max(1, n)-2))
}

// renewAll makes renewDue send all queries again. Consul may have restarted with less data,
// may have stopped filtering its answers, or may want other credentials; a blocking query
// would show that only at the end of its time. Until then the last answers stay.
func (s *queries) renewAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewal = true
}

// renewDue sends all queries again if renewAll was called and the agent has room for them.
func (s *queries) renewDue(now time.Time) {
	pause := s.renewPause()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.renewal || now.Sub(s.renewedAt) < pause {
		return
	}
	s.renewal, s.renewedAt = false, now
	for _, q := range s.byName {
		if q.Type() == dependency.TypeConsul {
			q.renew()
		}
	}
}

// failing returns the failing queries, sorted by name. all is true if there are several
// queries and all of them fail.
func (s *queries) failing() (list []failing, all bool) {
	changes := s.changes.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allGoodAt == changes {
		return nil, false // the usual case; there may be thousands of queries
	}
	for _, q := range s.byName {
		if f, fails := q.failing(); fails {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		s.allGoodAt = changes
	}
	slices.SortFunc(list, func(a, b failing) int { return strings.Compare(a.query, b.query) })
	return list, len(list) > 1 && len(list) == len(s.byName)
}

// hasList reports whether the last answer to the query for the list of services equals
// listed: the services by name, with their tags.
func (s *queries) hasList(listed map[string][]string) bool {
	q := s.find(catalogQuery)
	if q == nil {
		return false
	}
	data, _ := s.brain.Recall(q)
	known, _ := data.([]*dependency.CatalogSnippet)
	return len(known) == len(listed) && !slices.ContainsFunc(known, func(service *dependency.CatalogSnippet) bool {
		tags, ok := listed[service.Name]
		slices.Sort(tags)
		return !ok || !slices.Equal(tags, []string(service.Tags))
	})
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
