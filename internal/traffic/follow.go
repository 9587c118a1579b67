package traffic

import (
	"slices"
	"time"

	"lbctl/internal/endpoints"
)

// follow takes over the entries of the table.
func (c *Counters) follow(now time.Time) {
	c.entries = c.table.Entries()
	listed := make(map[string]bool, len(c.entries))
	for n := range c.entries {
		e := &c.entries[n]
		if e.Protocol == "" {
			continue
		}
		listed[e.Name] = true
		s := c.services[e.Name]
		if s == nil {
			s = newService(e.Name)
			c.services[e.Name] = s
		}
		s.gone = time.Time{}
		s.follow(e, now, c.addresses)
	}
	for name, s := range c.services {
		if !listed[name] {
			s.leave(now)
		}
	}
}

// followNames looks for other addresses of instances that have host names.
func (c *Counters) followNames(now time.Time) {
	for n := range c.entries {
		e := &c.entries[n]
		if s := c.services[e.Name]; s != nil && s.hasNames && s.gone.IsZero() {
			s.followInstances(e, now, c.addresses)
		}
	}
}

// follow takes over the settings and instances of the service's entry.
func (s *service) follow(e *endpoints.Entry, now time.Time, addresses func(string) []string) {
	family := e.Protocol.Family()
	if s.family != family {
		*s = *newService(s.name) // another service by the same name
	}
	s.family = family
	s.inMaintenance = e.Policy.Closure(family) != nil
	if s.registered == nil || s.isDefault != e.Default || !slices.Equal(s.registered, e.Routes) {
		s.followRoutes(e, now)
	}
	if e.Revision == 0 || e.Revision != s.revision || s.hasNames {
		s.followInstances(e, now, addresses)
	}
}

func (s *service) followRoutes(e *endpoints.Entry, now time.Time) {
	s.registered, s.isDefault = e.Routes, e.Default
	names := make(map[string]bool, len(e.Routes)+1)
	for _, r := range e.Routes {
		names[r.String()] = true
	}
	if e.Default {
		names[endpoints.Route{}.String()] = true
	}
	for name := range names {
		if s.routes[name] == nil {
			s.routes[name] = &route{}
		}
		s.routes[name].gone = time.Time{}
	}
	for name, r := range s.routes {
		if !names[name] && r.gone.IsZero() {
			r.gone = now
		}
	}
}

func (s *service) followInstances(e *endpoints.Entry, now time.Time, addresses func(string) []string) {
	s.revision, s.hasNames = e.Revision, false
	s.at = make(map[string]*instance, len(e.Instances)+len(e.Held))
	present := make(map[instanceKey]bool, len(e.Instances)+len(e.Held))
	for _, instances := range [][]endpoints.Instance{e.Instances, e.Held} {
		for _, of := range instances {
			key := instanceKey{of.HostPort(), of.Version}
			logged, isName := of.LoggedAddresses(addresses)
			s.hasNames = s.hasNames || isName
			if present[key] {
				continue // registered twice: one server
			}
			present[key] = true
			i := s.instance(key)
			i.node, i.id, i.logged, i.gone = of.Node, of.ID, logged, time.Time{}
			s.place(i)
		}
	}
	for key, i := range s.instances {
		if present[key] {
			continue
		}
		if i.gone.IsZero() {
			i.gone = now
		}
		s.place(i) // its last requests have not ended yet
	}
	s.changed = true
}

// place makes the instance known at its addresses, where no other one is.
func (s *service) place(i *instance) {
	for _, address := range i.logged {
		if s.at[address] == nil {
			s.at[address] = i
		}
	}
}

// leave notes that the service has left the table.
func (s *service) leave(now time.Time) {
	if !s.gone.IsZero() {
		return
	}
	s.gone, s.revision, s.registered, s.hasNames = now, 0, nil, false
	for _, i := range s.instances {
		if i.gone.IsZero() {
			i.gone = now
		}
	}
}

// forget forgets the routes and instances that left the table long ago, and the versions that no
// instance has any more.
func (s *service) forget(now time.Time, linger time.Duration) {
	for name, r := range s.routes {
		if isOver(r.gone, now, linger) {
			delete(s.routes, name)
			s.changed = true
		}
	}
	used := make(map[*version]bool, len(s.versions))
	for key, i := range s.instances {
		if isOver(i.gone, now, linger) {
			delete(s.instances, key)
			for _, address := range i.logged {
				if s.at[address] == i {
					delete(s.at, address)
				}
			}
			s.changed = true
			continue
		}
		used[i.of] = true
	}
	for name, v := range s.versions {
		if !used[v] {
			delete(s.versions, name)
			s.changed = true
		}
	}
}
