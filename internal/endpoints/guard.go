package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// guardMin is how many instances must be known before a share of them means
// anything: of three, two may well leave together.
const guardMin = 4

// guard keeps instances in rotation that vanish from the catalog in a suspicious way:
// many at once, the last ones of a service, more than its minimum allows, or any while
// Consul can't be trusted.
type guard struct {
	share   float64 // the Options of the same names
	window  time.Duration
	limit   time.Duration // GuardHold
	minimum int           // MinInstances

	vanished []vanished              // within the window; without those that were released
	counts   []served                // within the window
	holds    map[string]map[id]*hold // by service
}

// hold is one instance that is kept in rotation though Consul doesn't list it.
type hold struct {
	instance Instance
	reason   string
	since    time.Time
	until    time.Time // zero: restored from the snapshot, runs from the next observation
}

// vanished is an instance that went from the rotation to nothing.
type vanished struct {
	at       time.Time
	service  string
	instance Instance
}

// served is how many instances were served until an observation.
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

// observe takes in what an observation finds gone: it begins and ends holds.
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

// review ends the holds whose time is up, and those of instances that are back or whose
// address another instance has.
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

// decide holds those of the vanished that are suspicious. fresh is how many vanished just
// now, by service.
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
		// What vanished before and was replaced since stays away.
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

// countMissing is how many instances are missing, less those that came in their place
// within the window, and how many there were before they went. A roll-out that starts a
// new instance for every one that it deregisters loses none, however many it replaces.
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

// keepMinimum holds what has just vanished of a service that would be left with fewer
// instances in rotation than its minimum. All of it is held: probes find out which
// instances are gone, and it may be all of them.
func (g *guard) keepMinimum(now time.Time, o *observation, s Service) {
	own := s.MinInstances
	if !s.OK {
		own = o.before[s.Name].spec().MinInstances
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

// vanishedOf is what vanished of a service within the window, or, unless at is zero, just
// then.
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
			continue // the rest of the service has left properly since
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

// release ends one hold for good: the instance is gone or back, and what vanishes next
// does not bring it back. It reports whether the instance was held.
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

// forget ends the holds of a service that is no longer to be balanced: that is a
// decision, not a loss.
func (g *guard) forget(service string) {
	delete(g.holds, service)
	g.vanished = slices.DeleteFunc(g.vanished, func(v vanished) bool { return v.service == service })
}

// restart lets all holds run for their full time again.
func (g *guard) restart(now time.Time) {
	for _, holds := range g.holds {
		for _, h := range holds {
			h.until = now.Add(g.limit)
		}
	}
}

// nextDeadline is when the next hold ends by time; zero for never.
func (g *guard) nextDeadline() time.Time {
	var next time.Time
	for _, holds := range g.holds {
		for _, h := range holds {
			next = earlier(next, h.until)
		}
	}
	return next
}

// held is a service's held instances, sorted by Node and ID.
func (g *guard) held(service string) []Instance {
	var all []Instance
	for _, h := range g.holds[service] {
		all = append(all, h.instance)
	}
	slices.SortFunc(all, compareInstances)
	return all
}

// reason says why a service's instances are held, in the words of the latest hold; "" if
// none are.
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
