package endpoints

import "slices"

// observation is the catalog at one moment, with the records from before.
type observation struct {
	services map[string]Service
	before   map[string]*record
	// Both are built on first use, since most services have not changed.
	ids map[string]map[id]bool
	at  map[string][]registered // by host and port; only services that changed
}

// registered is an instance in the catalog.
type registered struct {
	service string
	id      id
}

// missing is an instance that was in rotation and is gone from the catalog.
type missing struct {
	service  string
	instance Instance
}

func newObservation(services []Service, before map[string]*record) *observation {
	o := &observation{services: make(map[string]Service, len(services)), before: before, ids: map[string]map[id]bool{}}
	for _, s := range services {
		if r := before[s.Name]; !r.isAt(s.Revision) && !slices.IsSortedFunc(s.Instances, compareInstances) {
			s.Instances = slices.Clone(s.Instances)
			slices.SortFunc(s.Instances, compareInstances)
		}
		s.Problems = slices.Clip(s.Problems)
		o.services[s.Name] = s
	}
	return o
}

// changed reports whether a service may have other instances than before.
func (o *observation) changed(service string) bool {
	s, ok := o.services[service]
	return !ok || !o.before[service].isAt(s.Revision)
}

func (o *observation) has(service string, k id) bool {
	ids, ok := o.ids[service]
	if !ok {
		s := o.services[service]
		ids = make(map[id]bool, len(s.Instances))
		for _, i := range s.Instances {
			ids[i.key()] = true
		}
		o.ids[service] = ids
	}
	return ids[k]
}

// takenOver reports whether another instance now has the address of an instance that is
// gone: one of the same service with another id, or a new one of any service, as after a
// restart in which containers swapped addresses. If the table kept serving the old
// instance, traffic would reach the wrong service.
func (o *observation) takenOver(service string, i Instance) bool {
	for _, other := range o.registeredAt(i.HostPort()) {
		if _, balanced := o.services[other.service]; !balanced {
			continue
		}
		if other.service == service && other.id != i.key() || other.service != service && !o.isKnown(other) {
			return true
		}
	}
	return false
}

// registeredAt returns the instances registered at a host and port. It looks only at
// services that changed.
func (o *observation) registeredAt(hostPort string) []registered {
	if o.at == nil {
		o.at = map[string][]registered{}
		for name, s := range o.services {
			if !o.changed(name) {
				continue
			}
			for _, i := range s.Instances {
				o.at[i.HostPort()] = append(o.at[i.HostPort()], registered{name, i.key()})
			}
		}
	}
	return o.at[hostPort]
}

func (o *observation) isKnown(i registered) bool {
	r, ok := o.before[i.service]
	return ok && slices.ContainsFunc(r.instances, func(x Instance) bool { return x.key() == i.id })
}
