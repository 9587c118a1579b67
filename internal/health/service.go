package health

import (
	"fmt"

	"lbctl/internal/controller"
	"lbctl/internal/endpoints"
)

// Service is the health of a service, as GET /health tells it.
type Service struct {
	// State is that of the endpoint table, as 'lbctl services' shows it.
	State endpoints.State `json:"state"`
	// Serving: an instance that passes its checks gets the service's requests.
	Serving bool `json:"serving"`
	// Maintenance: somebody has put the service, or all of its instances, in maintenance, so that
	// it does not serve.
	Maintenance bool `json:"maintenance,omitempty"`
	Passing     int  `json:"passing"` // instances that get requests and pass their checks
	Total       int  `json:"total"`   // instances that are registered, and those that lbctl holds
	// Time is how long the newest probe of an instance took, in milliseconds, rounded up, and Age
	// how long ago it was; nil if there was none.
	Time *int64 `json:"time,omitempty"`
	Age  *int64 `json:"age,omitempty"`
	// Error says why the service does not serve.
	Error string `json:"error,omitempty"`
}

// well reports whether the service is as well as its operator wants it to be.
func (s Service) well() bool { return s.Serving || s.Maintenance }

// serviceOf returns the health of an entry, without a probe.
func serviceOf(e endpoints.Entry, pinned controller.Pinned) Service {
	s := Service{State: e.State, Passing: passing(e), Total: len(e.Instances) + len(e.Held)}
	family := e.Protocol.Family()
	switch {
	case e.Protocol == "":
		s.Error = "its settings can't be used, and there are no earlier ones"
	case !e.Served():
		s.Error = "no route leads to it"
	case pinned.Lacks(e.Service):
		s.Error = fmt.Sprintf("generation %d is pinned, and does not have it", pinned.Generation)
	case e.Policy.Closure(family).All(), e.AllInMaintenance():
		s.Maintenance, s.Error = true, "it is in maintenance"
	case e.Expired:
		s.Error = "Consul has not confirmed it for too long"
	case s.Total == 0:
		s.Error = "it has no instance"
	case s.Passing == 0:
		s.Error = "none of its instances passes its checks"
	case e.Panicking:
		s.Error = "too few of its instances pass their checks"
	default:
		s.Serving = true
	}
	return s
}

// passing returns how many instances get requests and pass their checks, those of Consul and those
// of lbctl. Instances with a weight of 0 count: they are there for the case that others fail.
func passing(e endpoints.Entry) int {
	if !e.Served() || e.Expired {
		return 0
	}
	n := len(e.Held)
	for _, i := range e.Instances {
		if _, ejected := e.Ejection(i); i.InRotation() && !ejected && e.WhyUnusable(i) == "" {
			n++
		}
	}
	return n
}
