package endpoints

import (
	"cmp"
	"slices"
	"time"
)

const (
	// rampStep is the least time between two weights: nginx asks for them once a
	// second.
	rampStep = time.Second
	// rampSteps are the most weights below the full one.
	rampSteps = 9
	// rampScale multiplies the weights while one of them rises, because nginx's are
	// whole numbers.
	rampScale = 10

	maxWeight = 65535
)

// Ramp is an instance that was out and comes back with less than its weight.
type Ramp struct {
	Node  string  `json:"node"`
	ID    string  `json:"id"`
	Share float64 `json:"share"` // of its weight; above 0 and below 1
}

func compareRamps(a, b Ramp) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
}

// Ramp is the instance's slow start, if it has one.
func (e Entry) Ramp(i Instance) (Ramp, bool) {
	n, ok := slices.BinarySearchFunc(e.Ramps, Ramp{Node: i.Node, ID: i.ID}, compareRamps)
	if !ok {
		return Ramp{}, false
	}
	return e.Ramps[n], true
}

// weigh sets the weights of instances during a slow start.
func (e Entry) weigh(in []Instance) {
	if len(e.Ramps) == 0 {
		return
	}
	heaviest := 1
	for _, i := range in {
		heaviest = max(heaviest, i.Weight)
	}
	scale := min(rampScale, maxWeight/heaviest)
	for n := range in {
		in[n].Weight *= scale
		if ramp, ok := e.Ramp(in[n]); ok {
			in[n].Weight = max(1, int(float64(in[n].Weight)*ramp.Share+0.5))
		}
	}
}

// ramps are the slow starts. They follow which instances get traffic.
type ramps struct {
	time     time.Duration      // Options.SlowStart
	byReload map[string]string  // what SetByReload said
	known    bool               // it said something
	services map[string]ramping // of services that have slow starts
}

// ramping is one service's instances, as far as they are registered and have got traffic.
type ramping struct {
	instances map[id]traffic
	next      time.Time // when one of their weights rises next; zero: none will
}

// traffic says since when an instance gets traffic.
type traffic struct {
	on   bool      // it gets some now
	back time.Time // when it came back, as long as it has less than its weight
}

// SetByReload says which services have their servers written into nginx's files, by name
// with the reason, so that a change of weight is a reload. They have no slow start.
// Before the first call no service has one.
func (t *Table) SetByReload(services map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ramps.byReload, t.ramps.known = services, true
}

// follow reports whether a service has slow starts.
func (r *ramps) follow(service string) bool {
	_, byReload := r.byReload[service]
	return r.time > 0 && r.known && !byReload
}

// current reports whether what is remembered of a service's traffic is what has to be
// remembered: all of it, or nothing.
func (r *ramps) current(service string) bool {
	_, followed := r.services[service]
	return followed == r.follow(service)
}

// steps is after how long the weight rises, and how often until it is full.
func (r *ramps) steps() (step time.Duration, steps int) {
	steps = min(rampSteps, max(1, int(r.time/rampStep)))
	return r.time / time.Duration(steps), steps
}

// update takes in which of an entry's instances get traffic now, and returns those that
// get only a part of their weight because they were out. A new instance gets all of its
// weight: the others need the help. So do all instances if no other is left to carry the
// rest, and if a change of weight is a reload.
func (r *ramps) update(now time.Time, e Entry) []Ramp {
	if !r.follow(e.Name) {
		delete(r.services, e.Name)
		return nil
	}
	in := e.Rotation()
	on := make(map[id]bool, len(in))
	for _, i := range in {
		on[i.key()] = true
	}
	step, steps := r.steps()
	before := r.services[e.Name].instances
	after := ramping{instances: make(map[id]traffic, len(e.Instances))}
	var all []Ramp
	for _, i := range e.Instances {
		k := i.key()
		got, known := before[k]
		switch {
		case !on[k] && known:
			after.instances[k] = traffic{}
			continue
		case !on[k]:
			continue
		case known && !got.on:
			got.back = now
		}
		got.on = true
		passed := int(now.Sub(got.back) / step)
		if e.Panicking || passed >= steps {
			got.back = time.Time{}
		} else if !got.back.IsZero() {
			all = append(all, Ramp{i.Node, i.ID, float64(passed+1) / float64(steps+1)})
			after.next = earlier(after.next, got.back.Add(time.Duration(passed+1)*step))
		}
		after.instances[k] = got
	}
	if len(all) == len(in) {
		all, after.next = nil, time.Time{}
	}
	r.services[e.Name] = after
	return all
}

// nextStep is when the next weight rises; zero when none will.
func (r *ramps) nextStep() time.Time {
	var next time.Time
	for _, s := range r.services {
		next = earlier(next, s.next)
	}
	return next
}
