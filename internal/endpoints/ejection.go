package endpoints

import (
	"cmp"
	"slices"
	"time"

	"lbctl/internal/policy"
)

// Ejector is the part of lbctl that ejects an instance.
type Ejector string

// ByProbe is lbctl's own probe of the instance.
const ByProbe Ejector = "probe"

// Ejection is an instance that lbctl takes out of rotation although its checks pass in
// Consul.
type Ejection struct {
	Node   string    `json:"node"`
	ID     string    `json:"id"`
	By     Ejector   `json:"source"`
	Reason string    `json:"reason"` // for people: "connection refused"
	Since  time.Time `json:"since"`
	// Kept: it still gets traffic, because too many instances of its service are ejected.
	Kept bool `json:"kept,omitempty"`
}

func compareEjections(a, b Ejection) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
}

// Ejection returns the instance's ejection, if it has one.
func (e Entry) Ejection(i Instance) (Ejection, bool) {
	n, ok := slices.BinarySearchFunc(e.Ejections, Ejection{Node: i.Node, ID: i.ID}, compareEjections)
	if !ok {
		return Ejection{}, false
	}
	return e.Ejections[n], true
}

// sendable reports whether Consul has the instance in rotation, and it is not ejected.
func (e Entry) sendable(i Instance) bool {
	if !i.InRotation() {
		return false
	}
	out, ok := e.Ejection(i)
	return !ok || out.Kept
}

// failing is an instance that a source has ejected.
type failing struct {
	Ejection
	address string // its address when it failed
}

// ejections has the instances that sources have ejected.
type ejections struct {
	share   float64                   // Options.MaxEjected
	failing map[string]map[id]failing // by service
}

// Eject takes an instance at a host and port out of rotation, if enough others of its
// service are left. It takes effect with the next observation; Changed fires for that. An
// instance that is already ejected keeps the first reason.
func (t *Table) Eject(service, hostPort string, e Ejection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := id{e.Node, e.ID}
	if t.records[service] == nil || t.ejections.failing[service][k].By != "" {
		return
	}
	if t.ejections.failing[service] == nil {
		t.ejections.failing[service] = map[id]failing{}
	}
	t.ejections.failing[service][k] = failing{e, hostPort}
	t.opts.Logger.Warn("instance ejected", "service", service, "instance", e.ID, "node", e.Node, "reason", e.Reason)
	notify(t.changed)
}

// Readmit ends the ejection of an instance, if the same part of lbctl ejected it. It takes effect
// with the next observation; Changed fires for that.
func (t *Table) Readmit(service, node, instance string, by Ejector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := id{node, instance}
	if by == "" || t.ejections.failing[service][k].By != by {
		return
	}
	delete(t.ejections.failing[service], k)
	t.opts.Logger.Info("instance readmitted", "service", service, "instance", instance, "node", node)
	notify(t.changed)
}

// isOut reports whether an instance was ejected and gets no traffic.
func (x *ejections) isOut(service string, i Instance) bool {
	f := x.failing[service][i.key()]
	return f.By != "" && !f.Kept
}

// of returns the ejections of an entry's instances. It drops the ejections of instances
// that Consul no longer has in rotation or has at another address, and of those that are
// no longer probed.
func (x *ejections) of(e Entry) []Ejection {
	all := x.current(e)
	slices.SortFunc(all, func(a, b Ejection) int {
		return cmp.Or(a.Since.Compare(b.Since), compareEjections(a, b))
	})
	most := x.allowed(Service{Instances: e.Instances}.InRotation())
	for n := range all {
		all[n].Kept = n >= most
		k := id{all[n].Node, all[n].ID}
		f := x.failing[e.Name][k]
		f.Kept = all[n].Kept
		x.failing[e.Name][k] = f
	}
	slices.SortFunc(all, compareEjections)
	return all
}

// current returns the failing instances of an entry, and drops the others.
func (x *ejections) current(e Entry) []Ejection {
	before := x.failing[e.Name]
	if len(before) == 0 {
		return nil
	}
	var all []Ejection
	after := map[id]failing{}
	for _, i := range e.Instances {
		f, ok := before[i.key()]
		asked := f.By != ByProbe || e.Policy.General().Check != policy.CheckNone
		if ok && asked && i.InRotation() && f.address == i.HostPort() {
			all = append(all, f.Ejection)
			after[i.key()] = f
		}
	}
	x.failing[e.Name] = after
	if len(after) == 0 {
		delete(x.failing, e.Name)
	}
	return all
}

// allowed returns how many of a service's instances in rotation may be ejected: the share,
// at least one, and never all. If no instance can be reached, the network of this machine
// is the more likely cause, and trying them is better than serving nothing.
func (x *ejections) allowed(inRotation int) int {
	return min(max(1, int(x.share*float64(inRotation))), max(0, inRotation-1))
}
