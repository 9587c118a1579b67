package controller

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/render"
	"lbctl/internal/resolver"
)

// moving describes new servers that nginx has yet to fetch.
type moving struct {
	since  time.Time
	before []endpoints.Entry // what nginx served; nil: not known
	// partial: before has only the services whose servers nginx asks for, since the entries
	// of the generation are not known.
	partial bool
	after   []endpoints.Entry // if partial: what nginx is to fetch
	// upstreams has those that changed, except for steps of slow starts; nil: all. Steps
	// alone are no pending change and no event: a slow start has one of them a second.
	upstreams map[string]bool
}

// onlySteps reports whether nothing but weights of slow starts changed.
func (m *moving) onlySteps() bool { return m.upstreams != nil && len(m.upstreams) == 0 }

// waits reports whether one of the changed upstreams is unfetched.
func (m *moving) waits(unfetched map[string]time.Time) bool {
	for upstream := range unfetched {
		if m.upstreams == nil || m.upstreams[upstream] {
			return true
		}
	}
	return false
}

// movedTo returns the entries to compare with m.before.
func (l *loop) movedTo(m *moving) []endpoints.Entry {
	if m.partial {
		return m.after
	}
	return l.entries
}

// move records that nginx has yet to fetch new servers.
func (d *delivery) move(next moving) {
	d.nextFetchCheck = time.Now().Add(fetchCheckEvery)
	switch m := d.moving; {
	case m == nil, m.onlySteps() && !next.onlySteps():
		d.moving = &next
	case next.upstreams == nil:
		m.upstreams = nil
	case m.upstreams != nil:
		maps.Copy(m.upstreams, next.upstreams)
	}
}

// changedUpstreams returns the upstreams whose servers differ between two answers, except
// for weights of slow starts. It returns nil, which means all, if before is nil.
func changedUpstreams(before, after map[string][]resolver.Target, slow map[string]bool) map[string]bool {
	if before == nil {
		return nil
	}
	changed := map[string]bool{}
	for upstream, targets := range after {
		old, ok := before[upstream]
		if ok && resolver.SameTargets(old, targets) {
			continue
		}
		if !ok || !slow[upstream] || !slices.Equal(addresses(old), addresses(targets)) {
			changed[upstream] = true
		}
	}
	return changed
}

func addresses(targets []resolver.Target) []netip.AddrPort {
	all := make([]netip.AddrPort, 0, len(targets))
	for _, t := range targets {
		all = append(all, t.Addr)
	}
	return all
}

// slowUpstreams returns the upstreams of services that had or have a slow start, and whose
// instances have the same weights in Consul as before. Both lists are sorted by name.
func slowUpstreams(before, after []endpoints.Entry) map[string]bool {
	slow := map[string]bool{}
	for old, now := range withFormer(before, after) {
		if old == nil || len(old.Ramps) == 0 && len(now.Ramps) == 0 {
			continue
		}
		if len(instances(fullWeights(old), fullWeights(now))) == 0 {
			slow[render.UpstreamName(now.Protocol, now.Name)] = true
		}
	}
	return slow
}

// fullWeights returns the instances of an entry that get traffic, with the weights that they
// have after their slow start. It returns nil for a nil entry.
func fullWeights(e *endpoints.Entry) []endpoints.Instance {
	if e == nil {
		return nil
	}
	return e.WithoutSlowStart().Usable()
}
