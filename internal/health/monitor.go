// Package health tells clients of the balancer whether the services behind it can serve them:
// as JSON to GET requests, and by gRPC's standard health service. nginx passes the requests on
// to lbctl over two unix sockets.
package health

import (
	"net"
	"slices"
	"strings"
	"sync"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
	"lbctl/internal/policy"
	"lbctl/internal/routing"
)

// Table is the endpoint table.
type Table interface {
	Entries() []endpoints.Entry
}

// Controller is the daemon's loop.
type Controller interface {
	Pinned() controller.Pinned
	Routing() controller.Routing
}

// monitor knows the health of all services.
type monitor struct {
	table      Table
	controller Controller

	mu     sync.Mutex
	latest *snapshot
}

// snapshot is the health of all services at one moment. It is not changed.
type snapshot struct {
	entries  []endpoints.Entry
	known    bool // lbctl knows which services there are
	pinned   bool
	services map[string]Service // by name; those that clients may know
	hidden   bool               // there are others
	well     bool               // all are as well as their operators want
	ways     []way              // in order
}

// way is a route to a gRPC service.
type way struct {
	endpoints.Route
	service string
}

// now returns the newest snapshot. If it is the one of an earlier call, nothing has changed.
func (m *monitor) now() *snapshot {
	entries, pinned := m.table.Entries(), m.controller.Pinned()
	known := len(entries) > 0 || m.controller.Routing().Listeners != nil
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.latest; old != nil && !old.pinned && pinned.Generation == 0 && old.known == known && same(old.entries, entries) {
		return old
	}
	s := &snapshot{entries: entries, known: known, pinned: pinned.Generation != 0, services: make(map[string]Service, len(entries)), well: true}
	s.hidden = slices.ContainsFunc(entries, isHidden)
	for _, e := range entries {
		// The policy of a service without usable settings is not known.
		if isHidden(e) || s.hidden && e.Protocol == "" {
			continue
		}
		one := serviceOf(e, pinned)
		s.services[e.Name] = one
		s.well = s.well && one.well()
		if e.Protocol.Family() != "grpc" {
			continue
		}
		for _, r := range e.Routes {
			if r.Path != "" {
				s.ways = append(s.ways, way{r, e.Name})
			}
		}
	}
	slices.SortStableFunc(s.ways, func(a, b way) int { return routing.Compare(a.Route, b.Route) })
	m.latest = s
	return s
}

// isHidden reports whether the policy of a service says that clients are not told of it.
func isHidden(e endpoints.Entry) bool { return e.Policy.General().Health.Report == policy.Off }

// none reports whether clients may know no service, although there are some.
func (s *snapshot) none() bool { return s.hidden && len(s.services) == 0 }

// same reports whether both are the same memory: the table never changes entries that it has given.
func same(a, b []endpoints.Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// find returns the service of a name: that of Consul, or else the one that gets the calls of a gRPC
// service of that name, as far as a route names it. authority is the host that the client asks for.
func (s *snapshot) find(name, authority string) (Service, bool) {
	if found, ok := s.services[name]; ok {
		return found, true
	}
	found, ok := s.services[s.routed(name, authority)]
	return found, ok
}

// routed returns the Consul service that gets the calls of a gRPC service; "" if no route names it.
// A route of single methods, and one with headers, counts if there is no other.
func (s *snapshot) routed(name, authority string) string {
	host := strings.ToLower(authority)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	hosts, partly := routing.Hosts(host), ""
	for _, w := range s.ways {
		if !slices.Contains(hosts, w.Host) {
			continue
		}
		switch whole, some := names(w.Route, name); {
		case whole && !w.Conditional():
			return w.service
		case (whole || some) && partly == "":
			partly = w.service
		}
	}
	return partly
}

// names reports whether a route names a gRPC service or its package, and whether it names a method
// of the service.
func names(r endpoints.Route, name string) (whole, method bool) {
	path := strings.Trim(r.Path, "/")
	if prefix, ok := strings.CutSuffix(path, "*"); ok {
		return strings.HasPrefix(name, prefix), false
	}
	service, _, method := strings.Cut(path, "/")
	return service == name && !method, service == name && method
}
