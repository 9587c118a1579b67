package metrics

import (
	"time"

	"lbctl/internal/endpoints"
)

// Services is the endpoint table.
type Services interface {
	Entries() []endpoints.Entry
	Ages(now time.Time) map[string]time.Duration
	Ejected() map[string]map[endpoints.Ejector]int
}

var (
	servicesSection = newSection("Services and instances")

	services = servicesSection.gauge("lbctl_services", "Number of services that ask to be balanced, by state.",
		label{"state", oneOf(endpoints.States())})
	serviceState = servicesSection.gauge("lbctl_service_state", "1 for the state of a service. Other states have no series.",
		service, label{"state", oneOf(endpoints.States())})
	serviceServed = servicesSection.gauge("lbctl_service_served",
		"1 if nginx serves the service, 0 if not: it is in quarantine and never had a good state, or other services have all its routes.", service)
	discoveryAge = servicesSection.gauge("lbctl_discovery_age_seconds",
		"How long ago Consul last confirmed the service; 0 while it does.", service)
	instances = servicesSection.gauge("lbctl_instances",
		"Number of instances: those that get traffic, those in Consul, those that are gone from Consul and kept, "+
			"those that lbctl has taken out of rotation.",
		service, label{"state", "in-rotation|registered|held|ejected"})
	ejections = servicesSection.counter("lbctl_instance_ejections_total",
		"Ejections of instances by lbctl's probes or the circuit breaker, also of those that still get traffic because too many are ejected.",
		service, label{"by", oneOf(endpoints.Ejectors())})
)

func collectServices(to *text, table Services) {
	entries, ages, ejected := table.Entries(), table.Ages(time.Now()), table.Ejected()
	states := map[endpoints.State]int{}
	for _, e := range entries {
		states[e.State]++
		to.set(serviceState, 1, e.Name, string(e.State))
	}
	for _, state := range endpoints.States() {
		to.set(services, float64(states[state]), string(state))
	}
	for _, e := range entries {
		to.truth(serviceServed, e.Served(), e.Name)
	}
	for _, e := range entries {
		if age, ok := ages[e.Name]; ok {
			to.set(discoveryAge, age.Seconds(), e.Name)
		}
	}
	for _, e := range entries {
		inRotation := 0
		if e.Served() {
			inRotation = len(e.Usable())
		}
		out := 0
		for _, x := range e.Ejections {
			if !x.Kept {
				out++
			}
		}
		to.set(instances, float64(inRotation), e.Name, "in-rotation")
		to.set(instances, float64(len(e.Instances)), e.Name, "registered")
		to.set(instances, float64(len(e.Held)), e.Name, "held")
		to.set(instances, float64(out), e.Name, "ejected")
	}
	for _, e := range entries {
		for _, by := range endpoints.Ejectors() {
			to.set(ejections, float64(ejected[e.Name][by]), e.Name, string(by))
		}
	}
}
