package consultest

import "github.com/hashicorp/consul/api"

// Entry is one instance as Consul returns it: on node "node-1", passing, with weight 1.
func Entry(service, id, address string, port int, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node: &api.Node{Node: "node-1"},
		Service: &api.AgentService{
			ID: id, Service: service, Address: address, Port: port,
			Meta:    map[string]string{},
			Weights: api.AgentWeights{Passing: 1, Warning: 1},
		},
		Checks: api.HealthChecks{{CheckID: "service:" + id, Status: api.HealthPassing}},
	}
	for _, c := range change {
		c(e)
	}
	return e
}

// Tags adds tags to an Entry.
func Tags(tags ...string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Tags = append(e.Service.Tags, tags...) }
}

// Meta adds metadata to an Entry: key, value, key, value ...
func Meta(pairs ...string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) {
		for n := 0; n < len(pairs); n += 2 {
			e.Service.Meta[pairs[n]] = pairs[n+1]
		}
	}
}

// Status gives an Entry a check with that status, or puts it into maintenance.
func Status(status string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) {
		e.Checks = api.HealthChecks{{CheckID: "service:" + e.Service.ID, Status: status}}
		if status == api.HealthMaint {
			e.Checks = api.HealthChecks{{CheckID: api.ServiceMaintPrefix + e.Service.ID, Status: api.HealthCritical}}
		}
	}
}

// Weights gives an Entry its weights for the statuses passing and warning.
func Weights(passing, warning int) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Service.Weights = api.AgentWeights{Passing: passing, Warning: warning} }
}

// OnNode puts an Entry on another node.
func OnNode(node string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Node.Node = node }
}
