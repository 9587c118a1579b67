// Package consul follows the services and instances in Consul's catalog, and the queries of
// templates. It also checks whether Consul's answers can be trusted: whether Consul has a
// leader, filters its answers, or has stopped answering.
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

// maxNameAsked bounds the service names in requests, so that a path with the
// percent-encoded name fits into a request.
const maxNameAsked = 1024

// Options configure a Follower.
type Options struct {
	// Consul is how to reach Consul. By default the environment variables of Consul's own
	// commands apply, such as CONSUL_HTTP_ADDR.
	Consul *api.Config
	// Table remembers services, and which version of a policy nginx refused. It is only asked.
	Table *endpoints.Table
	// Reserved has the ports and addresses of the balancer itself, which no service can
	// have.
	Reserved metadata.Reserved
	// Policies is the prefix of the keys of the operator's policies in the KV store: "lb/". Empty
	// means that there are none.
	Policies string
	// Documents has the prefixes of the other keys in the KV store that are followed.
	Documents []string
	Logger    *slog.Logger
}

// Problem is a problem with Consul or with its answers, as a sentence for people.
type Problem struct {
	Service string // empty: Consul itself, the credentials, or all services
	Key     string // of the document in the KV store that has the problem; empty: none
	// Credentials is whether the files with the credentials can't be used, so that the former
	// ones are.
	Credentials bool
	Message     string
	Since       time.Time // zero: the caller sets it
}

// Follower follows the services in Consul's catalog and the queries of templates. Only one
// goroutine at a time may use it, except for Run, Reload, Status and Problems.
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
	unfollowed []Problem                        // services of that list that ask to be balanced, but can't be queried
	own        map[string]dependency.Dependency // the queries for the list, for documents and for services
	documents  []string                         // the prefixes of the keys that are followed
	native     map[string]dependency.Dependency // the queries of templates, by functions like key
	services   []followed                       // by name
	policies   policies
	revision   uint64          // of the service with the newest answer
	received   time.Time       // see Received
	failing    map[string]bool // the queries that failed at the last LogFailing, by name
}

// followed is a service as in Consul's last answer; the zero Service if it has no instances.
type followed struct {
	name     string
	answered bool // Consul has answered
	service  endpoints.Service
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
			// MaxStale is not set: a server that has just started would answer with an
			// empty catalog.
			BlockQueryWaitTime: queryWait,
		}),
		table:     opts.Table,
		logger:    opts.Logger,
		reserved:  opts.Reserved,
		documents: opts.Documents,
		policies:  policies{prefix: opts.Policies, table: opts.Table},
		listing:   listing,
		own:       map[string]dependency.Dependency{},
		native:    map[string]dependency.Dependency{},
	}
	if opts.Policies != "" {
		f.documents = append([]string{opts.Policies}, opts.Documents...)
	}
	return f, nil
}

// Start sends the queries for the list of services and for the documents.
func (f *Follower) Start() error {
	for _, prefix := range f.documents {
		if err := f.add(newDocumentsQuery(prefix)); err != nil {
			return err
		}
	}
	return f.add(f.listing)
}

// Reload reads the token file and the certificates again. If they have changed, all queries
// are sent again with them. Run also does this every two seconds. The error names the file
// that can't be used; the former credentials then stay in use. It waits for files that don't
// answer for some seconds at most, and ends with ctx. Any goroutine may call it.
func (f *Follower) Reload(ctx context.Context) error { return f.credentials.reload(ctx) }

// Run keeps checking whether Consul can be trusted, until ctx is done.
func (f *Follower) Run(ctx context.Context) error { return f.monitor.run(ctx) }

// Stop ends all queries. A current request of consul-template's own queries ends with its
// answer, within queryWait.
func (f *Follower) Stop() { f.watcher.Stop() }

// Answers delivers Consul's answers, for Receive.
func (f *Follower) Answers() <-chan *watch.View { return f.watcher.DataCh() }

// Changed fires when a query begins to fail, fails for another reason, or succeeds
// again, and when Trust changes.
func (f *Follower) Changed() <-chan struct{} { return f.queries.changed }

// Brain returns Consul's answers to the templates' queries.
func (f *Follower) Brain() *template.Brain { return f.queries.brain }

// Status returns the state of Consul. Any goroutine may call it.
func (f *Follower) Status() Status {
	status, _ := f.monitor.current()
	return status
}

// Receive stores an answer, unless its query has ended.
func (f *Follower) Receive(view *watch.View) {
	d := view.Dependency()
	q := f.queries.find(d.String())
	if q == nil || d != q {
		return
	}
	if at := q.came(); f.received.IsZero() || at.Before(f.received) {
		f.received = at
	}
	service, ok := view.Data().(endpoints.Service)
	if !ok {
		f.queries.brain.Remember(d, view.Data())
		if found, ok := view.Data().(documents); ok && f.policies.prefix != "" && found.prefix == f.policies.prefix {
			f.takePolicies(found)
		}
		return
	}
	if name, ok := serviceOf(d.String()); ok {
		if n, ok := f.place(name); ok {
			f.revision++
			service.Revision = f.revision
			f.services[n].answered, f.services[n].service = true, service
			f.setPolicy(&f.services[n])
		}
	}
}

// Received returns when the oldest of the answers came that Receive has stored since the last
// call; zero if it has stored none.
func (f *Follower) Received() time.Time {
	at := f.received
	f.received = time.Time{}
	return at
}

// Follow makes the services in the catalog those that are queried.
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
	for _, prefix := range f.documents {
		wanted[documentsQueryOf(prefix)] = true
	}
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

// canAsk reports whether a request for a service's instances is possible: the name becomes
// a part of a path, which Consul cleans.
func canAsk(service string) bool {
	return len(service) <= maxNameAsked && path.Clean("/"+service) == "/"+service
}

// NotBalanced returns a problem for each service that asks to be balanced and can't be,
// mostly because of its name. A service asks by its tags, which are in the catalog's list,
// or by its metadata, which its query returns. Services that don't ask are no problem,
// whatever their names are.
func (f *Follower) NotBalanced() []Problem {
	problems := slices.Clone(f.unfollowed)
	for _, s := range f.services {
		if !metadata.ValidName(s.name) && (asks(s.service) || !s.answered && f.tagged(s.name)) {
			problems = append(problems, badName(s.name))
		}
	}
	return problems
}

// tagged reports whether Consul's list has a service with a tag that asks for it to be
// balanced. Consul refuses queries for some names that it lists.
func (f *Follower) tagged(service string) bool {
	return slices.ContainsFunc(f.followed, func(s *dependency.CatalogSnippet) bool {
		return s.Name == service && metadata.HasTag(s.Tags)
	})
}

func badName(service string) Problem {
	return Problem{
		Service: service,
		Message: `it isn't balanced: its name has other characters than letters, digits, "-" and "_", or more than 255`,
	}
}

// Services returns the services in Consul's list; known is false before there is a list.
// unanswered has those whose query has no answer yet. A service without instances is left
// out, since it is about to leave the list, and so is a service whose name is invalid.
func (f *Follower) Services() (services []endpoints.Service, unanswered []string, known bool) {
	if _, ok := f.queries.brain.Recall(f.listing); !ok {
		return nil, nil, false
	}
	services = make([]endpoints.Service, 0, len(f.services))
	for _, s := range f.services {
		switch {
		case !metadata.ValidName(s.name):
		case !s.answered:
			unanswered = append(unanswered, s.name)
		case s.service.Name != "":
			services = append(services, s.service)
		}
	}
	return services, unanswered, true
}

// Listed reports whether Consul's last list has a service, balanced or not, and which tags
// its instances have. known is false until Consul has answered. Any goroutine may call it.
func (f *Follower) Listed(service string) (tags []string, listed, known bool) {
	data, known := f.queries.brain.Recall(f.listing)
	all, _ := data.([]*dependency.CatalogSnippet)
	for _, snippet := range all {
		if snippet.Name == service {
			return slices.Clone(snippet.Tags), true, known
		}
	}
	return nil, false, known
}

// SetNative sets the queries that the templates need now, and ends the others. complete is
// false if a template failed: it may need more queries than are known, so none is ended.
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

// add starts a query for the list or for a service.
func (f *Follower) add(d dependency.Dependency) error {
	f.own[d.String()] = d
	if q, ok := d.(*serviceQuery); ok {
		if n, known := f.place(q.service); !known {
			f.services = slices.Insert(f.services, n, followed{name: q.service})
		}
	}
	return f.start(d)
}

// remove ends a query that add started.
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
		return nil // the query is running already, for the templates or for the Follower
	}
	if _, err := f.watcher.Add(q); err != nil {
		return fmt.Errorf("watch %s: %w", d, err)
	}
	return nil
}

func (f *Follower) end(d dependency.Dependency) {
	name := d.String()
	if f.own[name] != nil || f.native[name] != nil {
		return // the templates or the Follower still need it
	}
	f.queries.remove(name)
	f.watcher.Remove(d)
	f.queries.brain.Forget(d)
}
