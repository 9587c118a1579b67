package endpoints

import (
	"cmp"
	"slices"
	"time"
)

// Source is who finds that an instance should be out though Consul has it in
// rotation.
type Source string

// ByProbe is lbctl's own question to the instance.
const ByProbe Source = "probe"

// Ejection is an instance that Consul has in rotation and that is out for a
// reason of our own.
type Ejection struct {
	Node   string    `json:"node"`
	ID     string    `json:"id"`
	Source Source    `json:"source"`
	Reason string    `json:"reason"` // for people: "connection refused"
	Since  time.Time `json:"since"`
	// Kept: it gets traffic all the same, for too many others of its service
	// are out.
	Kept bool `json:"kept,omitempty"`
}

func compareEjections(a, b Ejection) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
}

// Ejection is why an instance is out for a reason of our own, if it is.
func (e Entry) Ejection(i Instance) (Ejection, bool) {
	n, ok := slices.BinarySearchFunc(e.Ejections, Ejection{Node: i.Node, ID: i.ID}, compareEjections)
	if !ok {
		return Ejection{}, false
	}
	return e.Ejections[n], true
}

// sendable reports whether Consul has the instance in rotation, and nobody has
// ejected it.
func (e Entry) sendable(i Instance) bool {
	if !i.InRotation() {
		return false
	}
	out, ok := e.Ejection(i)
	return !ok || out.Kept
}

// failing is an instance that a source wants out.
type failing struct {
	Ejection
	address string // where it was when it failed
}

// Eject takes an instance at a host and port out of the rotation, if enough others of
// its service are left. It takes effect with the next observation, which Changed asks
// for. An instance that is out already stays so for the first reason.
func (t *Table) Eject(service, hostPort string, e Ejection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, k := t.records[service], id{e.Node, e.ID}
	if r == nil {
		return
	}
	if _, ok := r.failing[k]; ok {
		return
	}
	if r.failing == nil {
		r.failing = map[id]failing{}
	}
	r.failing[k] = failing{e, hostPort}
	t.opts.Logger.Warn("instance ejected", "service", service, "instance", e.ID, "node", e.Node, "reason", e.Reason)
	notify(t.changed)
}

// Readmit ends the ejection of an instance, if source is what ejected it. It takes
// effect with the next observation, which Changed asks for.
func (t *Table) Readmit(service, node, instance string, source Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, k := t.records[service], id{node, instance}
	if r == nil || r.failing[k].Source != source {
		return
	}
	delete(r.failing, k)
	t.opts.Logger.Info("instance readmitted", "service", service, "instance", k.id, "node", k.node)
	notify(t.changed)
}

// ejections is what of a service's instances is out. An instance that Consul
// does not have in rotation, or elsewhere now, is no longer our concern, nor is one
// that is to be asked no longer.
func (t *Table) ejections(r *record, e Entry) []Ejection {
	if len(r.failing) == 0 {
		return nil
	}
	var all []Ejection
	in := 0
	current := map[id]bool{}
	for _, i := range e.Instances {
		if !i.InRotation() {
			continue
		}
		in++
		if f, ok := r.failing[i.key()]; ok && f.address == i.HostPort() && (f.Source != ByProbe || e.Check != CheckNone) {
			current[i.key()] = true
			all = append(all, f.Ejection)
		}
	}
	for k := range r.failing {
		if !current[k] {
			delete(r.failing, k)
		}
	}
	slices.SortFunc(all, func(a, b Ejection) int {
		return cmp.Or(a.Since.Compare(b.Since), compareEjections(a, b))
	})
	most := t.mayEject(in)
	for n := range all {
		all[n].Kept = n >= most
		k := id{all[n].Node, all[n].ID}
		f := r.failing[k]
		f.Kept = all[n].Kept
		r.failing[k] = f
	}
	slices.SortFunc(all, compareEjections)
	return all
}

// mayEject is how many of a service's instances in rotation may be ejected: the
// share, but one in any case, and never all. Where nobody can be reached it is
// rather our own network that is broken, and nothing is better than a try.
func (t *Table) mayEject(in int) int {
	return min(max(1, int(t.opts.MaxEjected*float64(in))), max(0, in-1))
}
