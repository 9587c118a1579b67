// Package consul watches Consul: the services in its catalog with their instances, and the
// queries of templates. It also finds out whether Consul's answers can be trusted: whether
// it has a leader, filters its answers, or has stopped answering.
//
// It uses consul-template's Watcher and Brain.
package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/consul-template/template"
	"github.com/hashicorp/consul-template/watch"
	"github.com/hashicorp/consul/api"

	"lbctl/internal/consulclient"
	"lbctl/internal/endpoints"
	"lbctl/internal/metadata"
)

// maxNameAsked bounds the names of services that Consul is asked for, so that a path
// with one, percent-encoded, fits into a request.
const maxNameAsked = 1024

// Options configure a Follower.
type Options struct {
	// Consul is how to reach Consul; default what the environment says in
	// CONSUL_HTTP_ADDR and the other variables of Consul's own commands.
	Consul *api.Config
	// Table remembers services. It is only asked.
	Table *endpoints.Table
	// Reserved is what the balancer has itself, so that no service can.
	Reserved metadata.Reserved
	Logger   *slog.Logger
}

// Problem is something wrong with Consul or with what it says, in words for people.
type Problem struct {
	Service string // empty: Consul itself
	Message string
	Since   time.Time // zero: the caller sets it
}

// Follower follows the services in Consul's catalog and what templates ask for. But
// for Run, Reload, Status and Problems, one goroutine may use it at a time.
type Follower struct {
	queries     *queries
	credentials *credentials
	monitor     *monitor
	watcher     *watch.Watcher
	table       *endpoints.Table
	logger      *slog.Logger

	reserved   metadata.Reserved
	listing    dependency.Dependency            // the query for the list of services
	followed   []*dependency.CatalogSnippet     // the list whose services are followed
	unfollowed []Problem                        // services of that list for which there is no query though they ask to be balanced
	own        map[string]dependency.Dependency // the queries for the list and for services
	native     map[string]dependency.Dependency // the templates', by functions like key
	services   []followed                       // by name
	revision   uint64                           // of the service that was answered last
	failing    map[string]bool                  // the queries that were last found to fail, by name
}

// followed is a service as in Consul's last answer; the zero Service if it has none.
type followed struct {
	name    string
	heard   bool // Consul has said something
	service endpoints.Service
}

// New makes a Follower. It asks Consul for the list of services at once.
func New(opts Options) (*Follower, error) {
	client, err := consulclient.New(opts.Consul)
	if err != nil {
		return nil, err
	}
	queries := newQueries()
	credentials, err := newCredentials(client, queries, opts.Logger)
	if err != nil {
		return nil, err
	}
	listing, err := dependency.NewCatalogServicesQuery("")
	if err != nil {
		return nil, err
	}
	f := &Follower{
		queries:     queries,
		credentials: credentials,
		monitor:     newMonitor(credentials, opts.Table, opts.Logger),
		watcher: watch.NewWatcher(&watch.NewWatcherInput{
			Clients: credentials.native,
			// No MaxStale: a server that just started and knows nothing yet
			// would answer with an empty catalog.
			BlockQueryWaitTime: queryWait,
		}),
		table:    opts.Table,
		logger:   opts.Logger,
		reserved: opts.Reserved,
		listing:  listing,
		own:      map[string]dependency.Dependency{},
		native:   map[string]dependency.Dependency{},
	}
	return f, nil
}

// Start sends the query for the list of services.
func (f *Follower) Start() error { return f.add(f.listing) }

// Reload reads the token file and the certificates again, and has everything asked
// with them if they have changed. Run does so every two seconds by itself. The error
// says what can't be used; the former credentials stay in use then. Any goroutine may
// call it.
func (f *Follower) Reload() error { return f.credentials.reload() }

// Run finds out whether Consul can be believed, until ctx is done.
func (f *Follower) Run(ctx context.Context) error { return f.monitor.run(ctx) }

// Stop ends all queries. One of consul-template's own that is under way ends with
// its answer, within queryWait.
func (f *Follower) Stop() { f.watcher.Stop() }

// Answers gives what Consul answers, for Receive.
func (f *Follower) Answers() <-chan *watch.View { return f.watcher.DataCh() }

// Changed fires when a query begins to fail, fails for another reason, or succeeds
// again, and when Trust changes.
func (f *Follower) Changed() <-chan struct{} { return f.queries.changed }

// Brain has what Consul answered to the templates' queries.
func (f *Follower) Brain() *template.Brain { return f.queries.brain }

// Status is what is known of Consul. Any goroutine may call it.
func (f *Follower) Status() Status {
	status, _ := f.monitor.current()
	return status
}

// Receive takes an answer, unless its query was ended.
func (f *Follower) Receive(view *watch.View) {
	d := view.Dependency()
	q := f.queries.find(d.String())
	if q == nil || d != q {
		return
	}
	service, ok := view.Data().(endpoints.Service)
	if !ok {
		f.queries.brain.Remember(d, view.Data())
		return
	}
	if name, ok := serviceOf(d.String()); ok {
		if n, ok := f.place(name); ok {
			f.revision++
			service.Revision = f.revision
			f.services[n].heard, f.services[n].service = true, service
		}
	}
}

// Follow sends queries for the services that are in the catalog, and for no others.
func (f *Follower) Follow() {
	data, ok := f.queries.brain.Recall(f.listing)
	if !ok {
		return
	}
	listed, _ := data.([]*dependency.CatalogSnippet)
	if len(listed) > 0 && len(listed) == len(f.followed) && listed[0] == f.followed[0] {
		return
	}
	f.followed, f.unfollowed = listed, nil
	wanted := make(map[string]bool, len(listed)+1)
	wanted[f.listing.String()] = true
	for _, snippet := range listed {
		if snippet.Name == "consul" {
			continue
		}
		query := queryOf(snippet.Name)
		switch {
		case f.own[query] != nil:
		case !canAsk(snippet.Name):
			if metadata.HasTag(snippet.Tags) {
				f.unfollowed = append(f.unfollowed, badName(snippet.Name))
			}
			continue
		default:
			if err := f.add(newServiceQuery(snippet.Name, f.reserved)); err != nil {
				f.remove(query)
				f.unfollowed = append(f.unfollowed, Problem{Service: snippet.Name, Message: "it is not served: " + err.Error()})
				continue
			}
		}
		wanted[query] = true
	}
	for query := range f.own {
		if !wanted[query] {
			f.remove(query)
		}
	}
}

// canAsk reports whether Consul can be asked for a service's instances: the name is a
// part of a path, which Consul cleans.
func canAsk(service string) bool {
	return len(service) <= maxNameAsked && path.Clean("/"+service) == "/"+service
}

// NotBalanced is the services that ask to be balanced and can't be, mostly because of
// their names. Whether a service asks is known from its tags in the catalog's list, and from
// its metadata, for which Consul is asked. Services that don't ask are no problem,
// whatever their names are.
func (f *Follower) NotBalanced() []Problem {
	problems := slices.Clone(f.unfollowed)
	for _, s := range f.services {
		if asks(s.service) && !metadata.ValidName(s.name) {
			problems = append(problems, badName(s.name))
		}
	}
	return problems
}

func badName(service string) Problem {
	return Problem{
		Service: service,
		Message: `it isn't balanced: its name has other characters than letters, digits, "-" and "_", or more than 255`,
	}
}

// Services is what Consul says of the services it lists; known is false before it
// has listed any. unheard are those that it has said nothing about yet. A service
// without instances is left out: it is about to leave the list. So is one whose name
// can't be balanced.
func (f *Follower) Services() (services []endpoints.Service, unheard []string, known bool) {
	if _, ok := f.queries.brain.Recall(f.listing); !ok {
		return nil, nil, false
	}
	services = make([]endpoints.Service, 0, len(f.services))
	for _, s := range f.services {
		switch {
		case !metadata.ValidName(s.name):
		case !s.heard:
			unheard = append(unheard, s.name)
		case s.service.Name != "":
			services = append(services, s.service)
		}
	}
	return services, unheard, true
}

// SetNative says which queries the templates need now; the others are ended and
// forgotten. complete is false when templates failed: they may need more than is
// known, so nothing is ended.
func (f *Follower) SetNative(needs map[string]dependency.Dependency, complete bool) error {
	var errs []error
	for name, d := range needs {
		if f.native[name] == nil {
			f.native[name] = d
			errs = append(errs, f.start(d))
		}
	}
	if !complete {
		return errors.Join(errs...)
	}
	for name, d := range f.native {
		if needs[name] == nil {
			delete(f.native, name)
			f.end(d)
		}
	}
	return errors.Join(errs...)
}

func (f *Follower) place(service string) (int, bool) {
	return slices.BinarySearchFunc(f.services, service, func(x followed, name string) int { return strings.Compare(x.name, name) })
}

// add sends a query of our own.
func (f *Follower) add(d dependency.Dependency) error {
	f.own[d.String()] = d
	if q, ok := d.(*serviceQuery); ok {
		if n, known := f.place(q.service); !known {
			f.services = slices.Insert(f.services, n, followed{name: q.service})
		}
	}
	return f.start(d)
}

// remove ends what add began.
func (f *Follower) remove(name string) {
	d := f.own[name]
	if d == nil {
		return
	}
	delete(f.own, name)
	if q, ok := d.(*serviceQuery); ok {
		if n, known := f.place(q.service); known {
			f.services = slices.Delete(f.services, n, n+1)
		}
	}
	f.end(d)
}

func (f *Follower) start(d dependency.Dependency) error {
	q, ok := f.queries.add(d)
	if !ok {
		return nil // it is sent already, for the templates or for us
	}
	if _, err := f.watcher.Add(q); err != nil {
		return fmt.Errorf("watch %s: %w", d, err)
	}
	return nil
}

func (f *Follower) end(d dependency.Dependency) {
	name := d.String()
	if f.own[name] != nil || f.native[name] != nil {
		return // the templates need it still, or we do
	}
	f.queries.remove(name)
	f.watcher.Remove(d)
	f.queries.brain.Forget(d)
}
