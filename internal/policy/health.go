package policy

// Health is what clients of the balancer learn of the health of a service.
type Health struct {
	Report Switch // default On
}

var healthFields = []Field{
	field("health.report", func(p *Policy) *Switch { return &p.Health.Report }, switches(), string(Off),
		"Tells clients of the balancer about the health of the service: at GET /health and by gRPC's health service. "+
			"With off they learn neither its name nor its state, and it does not count for all services together.",
		everyFamily, defaults(string(On))),
}
