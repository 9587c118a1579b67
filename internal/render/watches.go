package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"
	"github.com/hashicorp/consul-template/watch"
	"github.com/hashicorp/consul/api"

	"lbctl/internal/endpoints"
)

// watches is the set of blocking queries at Consul, with consul-template's
// Watcher doing the work, and the brain that has their answers.
type watches struct {
	watcher *watch.Watcher
	brain   *template.Brain
	own     map[string]dependency.Dependency // the loop's
	// services is what the loop's queries for services have been answered, by name.
	services []watched
	native   map[string]dependency.Dependency // the templates', by functions like key
	// changed fires when a query has begun to fail or succeeds again.
	changed chan struct{}

	doubts atomic.Uint64 // how often a query fell into doubt or came out of it

	mu      sync.Mutex
	queries map[string]*query // that the watcher sends, for whomever
	none    uint64            // doubts when none was in doubt
}

// watched is a service, as Consul says: the zero one if there is none.
type watched struct {
	name    string
	heard   bool // Consul has said something
	service endpoints.Service
}

func (w *watches) place(service string) (int, bool) {
	return slices.BinarySearchFunc(w.services, service, func(x watched, name string) int { return strings.Compare(x.name, name) })
}

func newWatches(config *api.Config) (*watches, error) {
	clients := dependency.NewClientSet()
	if err := clients.CreateConsulClient(clientInput(config)); err != nil {
		return nil, fmt.Errorf("make a Consul client: %w", err)
	}
	return &watches{
		watcher: watch.NewWatcher(&watch.NewWatcherInput{
			Clients: clients,
			// No MaxStale: a server that just started and knows nothing yet
			// would answer with an empty catalog.
			BlockQueryWaitTime: queryWait,
		}),
		brain:   template.NewBrain(),
		own:     map[string]dependency.Dependency{},
		native:  map[string]dependency.Dependency{},
		changed: make(chan struct{}, 1),
		queries: map[string]*query{},
	}, nil
}

// clientInput is consul/api's configuration in consul-template's words.
func clientInput(c *api.Config) *dependency.CreateConsulClientInput {
	input := &dependency.CreateConsulClientInput{
		Address:    c.Address,
		Namespace:  c.Namespace,
		Token:      c.Token,
		TokenFile:  c.TokenFile,
		SSLEnabled: c.Scheme == "https" || strings.HasPrefix(c.Address, "https://"),
		SSLVerify:  !c.TLSConfig.InsecureSkipVerify,
		SSLCert:    c.TLSConfig.CertFile,
		SSLKey:     c.TLSConfig.KeyFile,
		SSLCACert:  c.TLSConfig.CAFile,
		SSLCAPath:  c.TLSConfig.CAPath,
		ServerName: c.TLSConfig.Address,

		TransportDialTimeout:         5 * time.Second,
		TransportDialKeepAlive:       15 * time.Second,
		TransportTLSHandshakeTimeout: 5 * time.Second,
		TransportIdleConnTimeout:     90 * time.Second,
		// There is a connection for every query, and each is idle for a moment
		// between two.
		TransportMaxIdleConns:        4096,
		TransportMaxIdleConnsPerHost: 4096,
	}
	if c.HttpAuth != nil {
		input.AuthEnabled = true
		input.AuthUsername = c.HttpAuth.Username
		input.AuthPassword = c.HttpAuth.Password
	}
	return input
}

// stop ends the queries. One of consul-template's own that is under way ends with
// its answer, within queryWait.
func (w *watches) stop() { w.watcher.Stop() }

// wait is how long a query waits for a change.
func (w *watches) wait() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return waitOf(len(w.queries))
}

// waitOf is how long each of so many queries waits for a change.
func waitOf(queries int) time.Duration {
	if queries >= manyQueries {
		return manyWait
	}
	return queryWait
}

// renewPause is how far apart it is at least that everything is asked anew, so that
// the agent never has too many queries: those that were given up count, too.
func (w *watches) renewPause() time.Duration {
	w.mu.Lock()
	queries := len(w.queries)
	w.mu.Unlock()
	return waitOf(queries) / time.Duration(max(1, agentQueries/max(1, queries)-2))
}

// find is the query of that name; nil when nobody asks it.
func (w *watches) find(name string) *query {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queries[name]
}

// failing is the queries that fail, by name; all reports whether no other is
// left of several.
func (w *watches) failing() (list []failing, all bool) {
	doubts := w.doubts.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.none == doubts {
		return nil, false // as mostly, and there may be thousands to ask
	}
	for _, q := range w.queries {
		if f, fails := q.failing(); fails {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		w.none = doubts
	}
	slices.SortFunc(list, func(a, b failing) int { return strings.Compare(a.query, b.query) })
	return list, len(list) > 1 && len(list) == len(w.queries)
}

// lists reports whether the list of services, by name with their tags, is the one
// that its watch has given.
func (w *watches) lists(listed map[string][]string) bool {
	q := w.find(catalogQuery)
	if q == nil {
		return false
	}
	data, _ := w.brain.Recall(q)
	known, _ := data.([]*dependency.CatalogSnippet)
	return len(known) == len(listed) && !slices.ContainsFunc(known, func(s *dependency.CatalogSnippet) bool {
		tags, ok := listed[s.Name]
		slices.Sort(tags)
		return !ok || !slices.Equal(tags, []string(s.Tags))
	})
}

// renew asks Consul everything anew, without waiting for a change. Until then
// the last answers stay.
func (w *watches) renew() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.queries {
		if q.Type() == dependency.TypeConsul {
			q.renew()
		}
	}
}

// receive takes an answer, unless its query isn't wanted any longer.
func (w *watches) receive(view *watch.View) {
	d := view.Dependency()
	q := w.find(d.String())
	if q == nil || d != q {
		return
	}
	service, ok := view.Data().(endpoints.Service)
	if !ok {
		w.brain.Remember(d, view.Data())
		return
	}
	if name, ok := serviceOf(d.String()); ok {
		if n, ok := w.place(name); ok {
			w.services[n].heard, w.services[n].service = true, service
		}
	}
}

// add watches d for the loop itself.
func (w *watches) add(d dependency.Dependency) error {
	w.own[d.String()] = d
	if q, ok := d.(*serviceQuery); ok {
		if n, known := w.place(q.service); !known {
			w.services = slices.Insert(w.services, n, watched{name: q.service})
		}
	}
	return w.start(d)
}

// remove ends what add began.
func (w *watches) remove(name string) {
	d := w.own[name]
	if d == nil {
		return
	}
	delete(w.own, name)
	if q, ok := d.(*serviceQuery); ok {
		if n, known := w.place(q.service); known {
			w.services = slices.Delete(w.services, n, n+1)
		}
	}
	w.end(d)
}

// setNative says what the templates need now: the rest is ended and forgotten.
// With failed templates nobody knows all they need, so nothing is ended.
func (w *watches) setNative(needs map[string]dependency.Dependency, complete bool) error {
	var errs []error
	for name, d := range needs {
		if w.native[name] == nil {
			w.native[name] = d
			errs = append(errs, w.start(d))
		}
	}
	if !complete {
		return errors.Join(errs...)
	}
	for name, d := range w.native {
		if needs[name] == nil {
			delete(w.native, name)
			w.end(d)
		}
	}
	return errors.Join(errs...)
}

func (w *watches) start(d dependency.Dependency) error {
	if w.find(d.String()) != nil {
		return nil // the other has asked already
	}
	q := newQuery(d, func() {
		w.doubts.Add(1)
		notify(w.changed)
	})
	q.wait = w.wait
	w.mu.Lock()
	w.queries[d.String()] = q
	w.mu.Unlock()
	if _, err := w.watcher.Add(q); err != nil {
		return fmt.Errorf("watch %s: %w", d, err)
	}
	return nil
}

func (w *watches) end(d dependency.Dependency) {
	name := d.String()
	if w.own[name] != nil || w.native[name] != nil {
		return // the other needs it still
	}
	w.mu.Lock()
	delete(w.queries, name)
	w.mu.Unlock()
	w.watcher.Remove(d)
	w.brain.Forget(d)
}
