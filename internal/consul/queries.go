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

// queries is the set of queries that are sent to Consul now. Any goroutine may use
// it.
type queries struct {
	brain *template.Brain // has the answers of all but those about services
	// changed fires when a query begins to fail, fails for another reason, or
	// succeeds again.
	changed  chan struct{}
	reversed atomic.Uint64 // how often that happened

	mu     sync.Mutex
	byName map[string]*query
	// allGoodAt is reversed as it was when no query failed.
	allGoodAt uint64
	renewal   bool      // renewAll was called, and everything has not been sent again since
	renewedAt time.Time // when everything was sent again last
}

func newQueries() *queries {
	return &queries{brain: template.NewBrain(), changed: make(chan struct{}, 1), byName: map[string]*query{}}
}

// add makes a query of d; false when there is one of that name.
func (s *queries) add(d dependency.Dependency) (*query, bool) {
	q := newQuery(d, func() {
		s.reversed.Add(1)
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

// find is the query of that name; nil when there is none.
func (s *queries) find(name string) *query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name]
}

// wait is how long a query waits for a change.
func (s *queries) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return waitOf(len(s.byName))
}

// waitOf is how long each of so many queries waits for a change.
func waitOf(queries int) time.Duration {
	if queries >= manyQueries {
		return manyWait
	}
	return queryWait
}

// renewPause is the minimum time between two renewals of all queries, so that the
// agent never has too many: it counts those that were given up, too.
func (s *queries) renewPause() time.Duration {
	s.mu.Lock()
	n := len(s.byName)
	s.mu.Unlock()
	return waitOf(n) / time.Duration(max(1, agentQueries/max(1, n)-2))
}

// renewAll has renewDue send every query to Consul again: Consul may have come back
// with less than it had, filter its answers no longer, or want other credentials. A
// blocking query would find out when its time is over. Until then the last answers
// stay.
func (s *queries) renewAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewal = true
}

// renewDue does what renewAll asked for, as soon as the agent has room for that many
// queries.
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

// failing is the queries that fail, by name; all reports whether there are several
// and every one fails.
func (s *queries) failing() (list []failing, all bool) {
	reversed := s.reversed.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allGoodAt == reversed {
		return nil, false // the usual case, and there may be thousands to ask
	}
	for _, q := range s.byName {
		if f, fails := q.failing(); fails {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		s.allGoodAt = reversed
	}
	slices.SortFunc(list, func(a, b failing) int { return strings.Compare(a.query, b.query) })
	return list, len(list) > 1 && len(list) == len(s.byName)
}

// hasList reports whether the newest list of services that its query gave is this
// one, by name with their tags.
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
