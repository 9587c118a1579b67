package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// guardMin is the minimum number of known instances for GuardShare to apply: of three
// instances, two may leave together for good reasons.
const guardMin = 4

// guard keeps instances in rotation if they vanish from the catalog in a suspicious way:
// many at once, the last ones of a service, so many that fewer than the minimum are left,
// or any while Consul can't be trusted.
type guard struct {
	share   float64 // the Options of the same names
	window  time.Duration
	limit   time.Duration // GuardHold
	minimum int           // MinInstances

	vanished []vanished              // within the window; without those that were released
	counts   []served                // within the window
	holds    map[string]map[id]*hold // by service
}

// hold is one instance that is kept in rotation although Consul doesn't list it.
type hold struct {
	instance Instance
	reason   string
	since    time.Time
	until    time.Time // zero: restored from the snapshot, runs from the next observation
}

// vanished is an instance that was in rotation and is gone from the catalog.
type vanished struct {
	at       time.Time
	service  string
	instance Instance
}

// served is the number of instances that were served until an observation.
type served struct {
	at        time.Time
	instances int
}

func newGuard(opts Options) guard {
	return guard{
		share: opts.GuardShare, window: opts.GuardWindow, limit: opts.GuardHold, minimum: opts.MinInstances,
		holds: map[string]map[id]*hold{},
	}
}

// observe begins and ends holds, given the instances that an observation finds gone.
func (g *guard) observe(now time.Time, o *observation, trust Trust, gone []missing) {
	g.vanished = slices.DeleteFunc(g.vanished, func(v vanished) bool {
		return now.Sub(v.at) > g.window || o.has(v.service, v.instance.key())
	})
	count := 0
	for name, r := range o.before {
		count += len(g.holds[name]) + r.inRotation
	}
	g.counts = slices.DeleteFunc(g.counts, func(s served) bool { return now.Sub(s.at) > g.window })
	g.counts = append(g.counts, served{now, count})
	fresh := map[string]int{}
	for _, m := range gone {
		g.vanished = append(g.vanished, vanished{now, m.service, m.instance})
		fresh[m.service]++
	}
	g.review(now, o, trust)
	g.decide(now, o, trust, fresh)
}

// review ends the holds whose time is over, and those of instances that are back or whose
// address another instance has now.
func (g *guard) review(now time.Time, o *observation, trust Trust) {
	for service, holds := range g.holds {
		for k, h := range holds {
			if h.until.IsZero() {
				h.until = now.Add(g.limit)
			}
			expired := trust == Trust{} && !now.Before(h.until)
			if expired || o.has(service, k) || o.takenOver(service, h.instance) {
				g.release(service, k)
			}
		}
	}
}

// decide holds the vanished instances that are suspicious. fresh has the number of
// instances that vanished with this observation, by service.
func (g *guard) decide(now time.Time, o *observation, trust Trust, fresh map[string]int) {
	if trust != (Trust{}) {
		reason := "vanished while Consul has no leader"
		if trust.Filtered {
			reason = "vanished while Consul filters its answers by ACLs; the token may be too weak"
		}
		g.hold(now, o, g.vanished, reason)
		return
	}
	if len(fresh) == 0 {
		return
	}
	lost, known := g.countMissing(o)
	if known >= guardMin && float64(lost) > g.share*float64(known) {
		// Don't hold instances that vanished earlier and have been replaced since.
		last := g.vanished[max(0, len(g.vanished)-lost):]
		g.hold(now, o, last, fmt.Sprintf("%d of %d instances vanished from the catalog at once", lost, known))
		return
	}
	for service, n := range fresh {
		s := o.services[service]
		if s.InRotation() > 0 {
			g.keepMinimum(now, o, s)
			continue
		}
		reason := fmt.Sprintf("the last %d instances in rotation vanished from the catalog at once", n)
		switch {
		case n == 1:
			reason = "the last instance in rotation vanished from the catalog"
		case len(s.Instances) == 0:
			reason = fmt.Sprintf("all %d instances vanished from the catalog at once", n)
		}
		g.hold(now, o, g.vanishedOf(service, time.Time{}), reason)
	}
}

// countMissing returns how many instances are missing, not counting those that were
// replaced within the window, and how many there were before. A rollout that starts a new
// instance for each one that it deregisters loses none, however many it replaces.
func (g *guard) countMissing(o *observation) (lost, known int) {
	listed := 0
	for _, s := range o.services {
		listed += s.InRotation()
	}
	counted := map[registered]bool{}
	for _, v := range g.vanished {
		counted[registered{v.service, v.instance.key()}] = true
	}
	lost = len(counted)
	for service, holds := range g.holds {
		for k := range holds {
			if !counted[registered{service, k}] {
				lost++
			}
		}
	}
	peak := 0
	for _, s := range g.counts {
		peak = max(peak, s.instances)
	}
	lost = min(lost, max(0, peak-listed))
	return lost, listed + lost
}

// keepMinimum holds the instances of a service that have just vanished, if fewer than its
// minimum would be left in rotation. It holds all of them: probes find out which ones are
// really gone.
func (g *guard) keepMinimum(now time.Time, o *observation, s Service) {
	own := s.Policy.General().MinInstances
	if !s.OK {
		own = o.before[s.Name].spec().Policy.General().MinInstances
	}
	least := cmp.Or(own, g.minimum)
	left := s.InRotation() + len(g.holds[s.Name])
	if left >= least {
		return
	}
	lost := g.vanishedOf(s.Name, now)
	verb := "instances vanished"
	if len(lost) == 1 {
		verb = "instance vanished"
	}
	g.hold(now, o, lost, fmt.Sprintf("%d %s from the catalog and left %d in rotation, less than the minimum of %d", len(lost), verb, left, least))
}

// vanishedOf returns the instances of a service that vanished within the window, or, unless
// at is zero, at that time.
func (g *guard) vanishedOf(service string, at time.Time) []vanished {
	var all []vanished
	for _, v := range g.vanished {
		if v.service == service && (at.IsZero() || v.at.Equal(at)) {
			all = append(all, v)
		}
	}
	return all
}

// hold keeps instances in rotation, unless they are held already.
func (g *guard) hold(now time.Time, o *observation, lost []vanished, reason string) {
	for _, v := range lost {
		if o.before[v.service] == nil {
			continue // the service has been deregistered in the meantime
		}
		if k := v.instance.key(); g.holds[v.service][k] == nil {
			g.put(v.service, &hold{v.instance, reason, now, now.Add(g.limit)})
		}
	}
}

func (g *guard) put(service string, h *hold) {
	if g.holds[service] == nil {
		g.holds[service] = map[id]*hold{}
	}
	g.holds[service][h.instance.key()] = h
}

// release ends one hold permanently: the instance is gone or back, and is not held again
// when others vanish. It reports whether the instance was held.
func (g *guard) release(service string, k id) bool {
	if g.holds[service][k] == nil {
		return false
	}
	delete(g.holds[service], k)
	if len(g.holds[service]) == 0 {
		delete(g.holds, service)
	}
	g.vanished = slices.DeleteFunc(g.vanished, func(v vanished) bool {
		return v.service == service && v.instance.key() == k
	})
	return true
}

// forget ends the holds of a service that no longer asks to be balanced: its owner decided
// that, so its instances are not lost.
func (g *guard) forget(service string) {
	delete(g.holds, service)
	g.vanished = slices.DeleteFunc(g.vanished, func(v vanished) bool { return v.service == service })
}

// restart sets all holds to their full time again.
func (g *guard) restart(now time.Time) {
	for _, holds := range g.holds {
		for _, h := range holds {
			h.until = now.Add(g.limit)
		}
	}
}

// nextDeadline returns when the next hold ends by time; zero for never.
func (g *guard) nextDeadline() time.Time {
	var next time.Time
	for _, holds := range g.holds {
		for _, h := range holds {
			next = earlier(next, h.until)
		}
	}
	return next
}

// held returns a service's held instances, sorted by Node and ID.
func (g *guard) held(service string) []Instance {
	var all []Instance
	for _, h := range g.holds[service] {
		all = append(all, h.instance)
	}
	slices.SortFunc(all, compareInstances)
	return all
}

// reason says why a service's instances are held, with the reason of the latest hold; ""
// if none are.
func (g *guard) reason(service string) string {
	var latest *hold
	for _, h := range g.holds[service] {
		if latest == nil || h.since.After(latest.since) || h.since.Equal(latest.since) && h.reason > latest.reason {
			latest = h
		}
	}
	if latest == nil {
		return ""
	}
	return fmt.Sprintf("%s; %d kept in rotation", latest.reason, len(g.holds[service]))
}
