package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"lbctl/internal/policy"
)

const (
	// rampStep is the minimum time between two weights, since nginx asks for them once a
	// second.
	rampStep = time.Second
	// rampSteps is the maximum number of weights below the full one.
	rampSteps = 9
	// rampScale multiplies all weights while one of them rises, because nginx's weights
	// are whole numbers.
	rampScale = 10
	// rampPatience is the maximum time by which a failing instance puts off a step of the
	// others. Ejecting an instance takes two to three seconds.
	rampPatience = 5 * time.Second

	maxWeight = 65535
)

// Ramp is the slow start of an instance that has returned: it gets a part of its weight.
type Ramp struct {
	Node  string  `json:"node"`
	ID    string  `json:"id"`
	Share float64 `json:"share"` // of its weight; above 0 and below 1
}

func compareRamps(a, b Ramp) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
}

// Ramp returns the instance's slow start, if it has one.
func (e Entry) Ramp(i Instance) (Ramp, bool) {
	n, ok := slices.BinarySearchFunc(e.Ramps, Ramp{Node: i.Node, ID: i.ID}, compareRamps)
	if !ok {
		return Ramp{}, false
	}
	return e.Ramps[n], true
}

// WithoutSlowStart returns the entry with the full weights of its instances.
func (e Entry) WithoutSlowStart() Entry {
	if len(e.Ramps) > 0 {
		e.Ramps, e.rotation = nil, nil
	}
	return e
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

// ramps has the slow starts of all services.
type ramps struct {
	time     time.Duration      // Options.SlowStart
	byReload map[string]string  // the argument of SetByReload
	known    bool               // SetByReload was called
	services map[string]ramping // the services that can have slow starts
	// suspects has the instances that failed their last probe, by service. Some of them are
	// ejected already.
	suspects map[string]map[id]bool
}

// ramping has those registered instances of a service that have ever got traffic.
type ramping struct {
	instances map[id]traffic
	next      time.Time // when one of their weights rises next; zero: none will
	at        time.Time // the weights are those of this time
	putOff    bool      // the step of next is put off
}

// traffic says since when an instance gets traffic.
type traffic struct {
	on   bool      // it gets traffic now
	back time.Time // when its slow start began; zero: it has its full weight
}

// SetByReload names the services whose servers are written into nginx's files, with the
// reason for each. They have no slow start, because each change of weight would be a
// reload. Before the first call no service has a slow start.
func (t *Table) SetByReload(services map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ramps.byReload, t.ramps.known = services, true
}

// NoteProbe tells the table whether an instance passed its last probe. While an instance
// that gets traffic fails, and is not ejected yet, the steps of its service's slow starts
// are put off: a request that waits for a connection to it fails when nginx gets another
// list of servers, also one with other weights only.
func (t *Table) NoteProbe(service, node, instance string, passed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := id{node, instance}
	suspects := t.ramps.suspects[service]
	if t.records[service] == nil || suspects[k] == !passed {
		return
	}
	if passed {
		delete(suspects, k)
		if t.ramps.services[service].putOff {
			notify(t.changed)
		}
		return
	}
	if suspects == nil {
		suspects = map[id]bool{}
		t.ramps.suspects[service] = suspects
	}
	suspects[k] = true
}

// isSuspect reports whether one of an entry's instances that get traffic failed its last
// probe, and may be ejected. It forgets instances that are no longer registered.
func (r *ramps) isSuspect(e Entry, rotation []Instance) bool {
	suspects := r.suspects[e.Name]
	if len(suspects) == 0 || e.Policy.General().Check == policy.CheckNone {
		return false
	}
	registered := make(map[id]bool, len(e.Instances))
	for _, i := range e.Instances {
		registered[i.key()] = true
	}
	maps.DeleteFunc(suspects, func(k id, _ bool) bool { return !registered[k] })
	return slices.ContainsFunc(rotation, func(i Instance) bool {
		_, ejected := e.Ejection(i)
		return suspects[i.key()] && !ejected
	})
}

// timeOfWeights returns the time whose weights an entry has now. That is now, or the time
// of the last weights while a step is put off.
func (r *ramps) timeOfWeights(now time.Time, e Entry, rotation []Instance) time.Time {
	before := r.services[e.Name]
	due := !before.next.IsZero() && !now.Before(before.next)
	if due && now.Before(before.next.Add(rampPatience)) && r.isSuspect(e, rotation) {
		return before.at
	}
	return now
}

// follow reports whether a service can have slow starts. With consistent hashing, another weight
// moves clients to other instances, so that it has none.
func (r *ramps) follow(service string, p *policy.Policy) bool {
	_, byReload := r.byReload[service]
	return r.time > 0 && r.known && !byReload && p.Balance.HashKey() == ""
}

// current reports whether the service is in services exactly if it can have slow starts.
func (r *ramps) current(service string, p *policy.Policy) bool {
	_, followed := r.services[service]
	return followed == r.follow(service, p)
}

// steps returns the time between two steps and how many there are.
func (r *ramps) steps() (step time.Duration, steps int) {
	steps = min(rampSteps, max(1, int(r.time/rampStep)))
	return r.time / time.Duration(steps), steps
}

// update records which of an entry's instances get traffic now, and returns those in slow
// start. A new instance has no slow start, since it was added to help the others. If all
// instances would be in slow start, none is, since no other can carry the rest.
func (r *ramps) update(now time.Time, e Entry) []Ramp {
	if !r.follow(e.Name, e.Policy.General()) {
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
	after := ramping{instances: make(map[id]traffic, len(e.Instances)), at: r.timeOfWeights(now, e, in)}
	after.putOff = after.at.Before(now)
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
		passed := max(0, int(after.at.Sub(got.back)/step))
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

// nextStep returns when the next weight rises; zero if none will. A step that is put off
// comes at the end of rampPatience, unless NoteProbe or Eject makes it come earlier.
func (r *ramps) nextStep() time.Time {
	var next time.Time
	for _, s := range r.services {
		step := s.next
		if s.putOff {
			step = step.Add(rampPatience)
		}
		next = earlier(next, step)
	}
	return next
}
