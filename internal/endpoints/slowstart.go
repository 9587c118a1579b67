package endpoints

import (
	"cmp"
	"slices"
	"time"
)

const (
	// rampStep is the least time between two weights: nginx takes them up once
	// a second.
	rampStep = time.Second
	// rampSteps are the most weights below the full one.
	rampSteps = 9
	// rampScale is what weights are multiplied by while one of them rises:
	// nginx's are whole numbers.
	rampScale = 10

	maxWeight = 65535
)

// Return is an instance that was out and comes back with less than its weight.
type Return struct {
	Node  string  `json:"node"`
	ID    string  `json:"id"`
	Share float64 `json:"share"` // of its weight; above 0 and below 1
}

func compareReturns(a, b Return) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
}

// Return is the instance's part in a slow start, if it has one.
func (e Entry) Return(i Instance) (Return, bool) {
	n, ok := slices.BinarySearchFunc(e.Returns, Return{Node: i.Node, ID: i.ID}, compareReturns)
	if !ok {
		return Return{}, false
	}
	return e.Returns[n], true
}

// weigh gives instances the weights that a slow start wants.
func (e Entry) weigh(in []Instance) {
	if len(e.Returns) == 0 {
		return
	}
	heaviest := 1
	for _, i := range in {
		heaviest = max(heaviest, i.Weight)
	}
	scale := min(rampScale, maxWeight/heaviest)
	for n := range in {
		in[n].Weight *= scale
		if back, ok := e.Return(in[n]); ok {
			in[n].Weight = max(1, int(float64(in[n].Weight)*back.Share+0.5))
		}
	}
}

// ramp is the times of a slow start: after how long the weight rises, and how
// often until it is full.
func (t *Table) ramp() (step time.Duration, steps int) {
	steps = min(rampSteps, max(1, int(t.opts.SlowStart/rampStep)))
	return t.opts.SlowStart / time.Duration(steps), steps
}

// returns follows who gets traffic, and gives those that get some again a part
// of their weight at first. An instance that is new gets all of it: the
// others need the help. So do all where there is nobody else to carry the rest,
// and where a change of weight is not cheap.
func (t *Table) returns(now time.Time, r *record, e Entry) []Return {
	if t.opts.SlowStart <= 0 || t.opts.CheapWeights == nil || !t.opts.CheapWeights(e.Name) {
		r.traffic = nil
		return nil
	}
	in := e.Rotation()
	on := make(map[id]bool, len(in))
	for _, i := range in {
		on[i.key()] = true
	}
	step, steps := t.ramp()
	after := make(map[id]traffic, len(e.Instances))
	var all []Return
	for _, i := range e.Instances {
		k := i.key()
		got, known := r.traffic[k]
		switch {
		case !on[k] && known:
			after[k] = traffic{}
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
			all = append(all, Return{i.Node, i.ID, float64(passed+1) / float64(steps+1)})
		}
		after[k] = got
	}
	r.traffic = after
	if len(all) == len(in) {
		return nil
	}
	return all
}

// traffic is what is known of a registered instance that has got some.
type traffic struct {
	on   bool      // it does now
	back time.Time // when it came back, as long as it has less than its weight
}

// nextStep is when the weight of one of the service's instances rises next; zero
// when none will.
func (t *Table) nextStep(r *record) time.Time {
	var next time.Time
	for _, b := range r.traffic {
		if b.back.IsZero() {
			continue
		}
		step, _ := t.ramp()
		at := b.back.Add((t.composed.Sub(b.back)/step + 1) * step)
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}
