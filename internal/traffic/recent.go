package traffic

import (
	"cmp"
	"slices"
	"time"
)

const (
	// recentSeconds is the length of a step of Recent.
	recentSeconds = 5
	// recentSteps is the number of its points: five minutes.
	recentSteps = 60
	// instanceSteps is the number of steps in the minute of RecentInstance.
	instanceSteps = 60 / recentSeconds
)

// StepDuration is the time of a Point.
const StepDuration = recentSeconds * time.Second

// Overview is what happened in the last five minutes. For TCP services, sessions stand where it says
// requests.
type Overview struct {
	End time.Time // when the newest points ended: a multiple of StepDuration
	// All has the requests and sessions of all services together, but no durations of sessions; without
	// Service and Instances.
	All      Recent
	Services []Recent // those that have had a request, sorted by name
}

// Recent is what happened to a service in the last five minutes. It begins anew with each lbctl,
// and leaves out requests that lbctl reads only seconds after their end, because it was stopped.
type Recent struct {
	Service string
	// Points are the complete steps of 5 seconds, the oldest first: 60, but fewer if the service's
	// first request is not so long ago.
	Points []Point
	// P50 and P99 are of the durations of the requests of the last 30 to 60 seconds, in seconds; -1
	// without requests.
	P50, P99  float64
	Instances []RecentInstance // those with a request, sorted by Endpoint
}

// Point is a step of 5 seconds.
type Point struct {
	Requests, Errors float64 // per second
	P50, P99         float64 // of the durations of requests, in seconds; -1 without requests
}

// RecentInstance is what an instance did in the last minute.
type RecentInstance struct {
	Endpoint         string
	Requests, Errors float64 // tries per second
	Share            float64 // of the service's tries, 0 to 1
	P99              float64 // of the durations of tries, in seconds, over 30 to 60 seconds; -1 without tries
}

// recent has the steps of a service.
type recent struct {
	points           [recentSteps]Point // a ring
	filled           int                // how many points there are
	requests, errors uint32             // of the current step
	took             fine
	halves           halfMinutes
}

func (r *recent) observe(d time.Duration, isError bool) {
	r.count(isError)
	r.took.observe(d)
	r.halves[0].observe(d)
}

// count is observe for a request whose duration does not count.
func (r *recent) count(isError bool) {
	r.requests++
	if isError {
		r.errors++
	}
}

// end ends the current step, which becomes the point of a step.
func (r *recent) end(step int64) {
	p := Point{P50: -1, P99: -1}
	if r.requests > 0 {
		p = Point{float64(r.requests) / recentSeconds, float64(r.errors) / recentSeconds, r.took.quantile(0.5), r.took.quantile(0.99)}
		r.took = fine{}
	}
	r.requests, r.errors = 0, 0
	r.points[step%recentSteps] = p
	r.filled = min(r.filled+1, recentSteps)
	r.halves.end(step)
}

// shown returns the points before a step.
func (r *recent) shown(step int64) Recent {
	all := Recent{Points: make([]Point, 0, r.filled)}
	for n := step - int64(r.filled); n < step; n++ {
		all.Points = append(all.Points, r.points[n%recentSteps])
	}
	took := r.halves.both()
	all.P50, all.P99 = took.quantile(0.5), took.quantile(0.99)
	return all
}

// halfMinutes has the durations of the current 30 seconds, and of those before.
type halfMinutes [2]fine

// end ends a step.
func (h *halfMinutes) end(step int64) {
	if step%(instanceSteps/2) == 0 && (h[0] != fine{} || h[1] != fine{}) {
		h[1], h[0] = h[0], fine{}
	}
}

func (h *halfMinutes) both() fine {
	took := h[0]
	took.add(&h[1])
	return took
}

// recentInstance has the steps of an instance.
type recentInstance struct {
	requests, errors [instanceSteps]uint32 // a ring; the current step is the last one
	at               int
	took             halfMinutes
}

func (r *recentInstance) observe(d time.Duration, isError bool) {
	r.requests[r.at]++
	if isError {
		r.errors[r.at]++
	}
	r.took[0].observe(d)
}

func (r *recentInstance) end(step int64) {
	r.at = (r.at + 1) % instanceSteps
	r.requests[r.at], r.errors[r.at] = 0, 0
	r.took.end(step)
}

// sums returns the tries and errors of the last minute.
func (r *recentInstance) sums() (requests, errors float64) {
	for n := range r.requests {
		requests += float64(r.requests[n])
		errors += float64(r.errors[n])
	}
	return requests, errors
}

// advance ends the steps that are over.
func (c *Counters) advance(now time.Time) {
	step := now.Unix() / recentSeconds
	if step == c.step {
		return
	}
	if c.step == 0 { // lbctl has just started, and knows nothing of earlier steps
		c.step = step
		return
	}
	first := max(c.step, step-recentSteps)
	if step < c.step { // somebody has set the clock back
		first = step - 1
	}
	for n := first; n < step; n++ {
		c.all.end(n)
		for _, s := range c.services {
			if s.recent != nil {
				s.recent.end(n)
			}
			for _, i := range s.instances {
				if i.recent != nil {
					i.recent.end(n)
				}
			}
		}
	}
	c.step = step
}

// Overview returns what happened in the last five minutes.
func (c *Counters) Overview() Overview {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(time.Now())
	return c.overview()
}

func (c *Counters) overview() Overview {
	o := Overview{End: time.Unix(c.step*recentSeconds, 0), All: c.all.shown(c.step), Services: make([]Recent, 0, len(c.services))}
	for _, s := range c.services {
		if s.recent == nil {
			continue
		}
		one := s.recent.shown(c.step)
		one.Service, one.Instances = s.name, s.recentInstances()
		o.Services = append(o.Services, one)
	}
	slices.SortFunc(o.Services, func(x, y Recent) int { return cmp.Compare(x.Service, y.Service) })
	return o
}

func (s *service) recentInstances() []RecentInstance {
	var all []RecentInstance
	total := 0.0
	for _, i := range s.instances {
		if i.recent == nil || !i.gone.IsZero() {
			continue
		}
		requests, errors := i.recent.sums()
		took := i.recent.took.both()
		total += requests
		all = append(all, RecentInstance{Endpoint: i.endpoint, Requests: requests / 60, Errors: errors / 60, P99: took.quantile(0.99)})
	}
	for n := range all {
		if total > 0 {
			all[n].Share = all[n].Requests * 60 / total
		}
	}
	slices.SortFunc(all, func(x, y RecentInstance) int { return cmp.Compare(x.Endpoint, y.Endpoint) })
	return all
}
