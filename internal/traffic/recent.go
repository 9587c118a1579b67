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

// Recent is what happened to a service in the last five minutes. It begins anew with each lbctl,
// and leaves out requests that lbctl reads only seconds after their end, because it was stopped.
type Recent struct {
	Service string
	// Points are the complete steps of 5 seconds, the oldest first: 60, but fewer if the service's
	// first request is not so long ago.
	Points    []Point
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
}

func (r *recent) observe(d time.Duration, isError bool) {
	r.requests++
	if isError {
		r.errors++
	}
	r.took.observe(d)
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
}

// recentInstance has the steps of an instance.
type recentInstance struct {
	requests, errors [instanceSteps]uint32 // a ring; the current step is the last one
	at               int
	took             [2]fine // of the current 30 seconds, and of those before
}

func (r *recentInstance) observe(d time.Duration, isError bool) {
	r.requests[r.at]++
	if isError {
		r.errors[r.at]++
	}
	r.took[0].observe(d)
}

func (r *recentInstance) end(step int64) {
	r.at = int((step + 1) % instanceSteps)
	r.requests[r.at], r.errors[r.at] = 0, 0
	if step%(instanceSteps/2) == 0 && (r.took[0] != fine{} || r.took[1] != fine{}) {
		r.took[1], r.took[0] = r.took[0], fine{}
	}
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
	first := max(c.step, step-recentSteps)
	if step < c.step { // somebody has set the clock back
		first = step - 1
	}
	for n := first; n < step; n++ {
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

// Recent returns what happened in the last five minutes to each service that has had a request,
// sorted by name.
func (c *Counters) Recent() []Recent {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(time.Now())
	return c.recently()
}

func (c *Counters) recently() []Recent {
	all := make([]Recent, 0, len(c.services))
	for _, s := range c.services {
		if s.recent == nil {
			continue
		}
		one := Recent{Service: s.name, Points: make([]Point, 0, s.recent.filled)}
		for n := c.step - int64(s.recent.filled); n < c.step; n++ {
			one.Points = append(one.Points, s.recent.points[n%recentSteps])
		}
		one.Instances = s.recentInstances()
		all = append(all, one)
	}
	slices.SortFunc(all, func(x, y Recent) int { return cmp.Compare(x.Service, y.Service) })
	return all
}

func (s *service) recentInstances() []RecentInstance {
	var all []RecentInstance
	total := 0.0
	for _, i := range s.instances {
		if i.recent == nil || !i.gone.IsZero() {
			continue
		}
		requests, errors := i.recent.sums()
		took := i.recent.took[0]
		took.add(&i.recent.took[1])
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
