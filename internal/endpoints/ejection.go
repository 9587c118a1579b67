package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"lbctl/internal/policy"
)

// Ejector is the part of lbctl that ejects an instance.
type Ejector string

// The parts of lbctl that eject instances.
const (
	ByProbe   Ejector = "probe"   // lbctl's own probe of the instance
	ByOutlier Ejector = "outlier" // the circuit breaker, from the answers that nginx got
)

// Ejection is an instance that lbctl takes out of rotation although its checks pass in
// Consul.
type Ejection struct {
	Node   string    `json:"node"`
	ID     string    `json:"id"`
	By     Ejector   `json:"source"`
	Reason string    `json:"reason"` // for people: "connection refused"
	Since  time.Time `json:"since"`
	// Until is when it ends; zero: when a probe passes.
	Until time.Time `json:"until,omitzero"`
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

// failing is an instance that at least one part of lbctl has ejected.
type failing struct {
	by      []Ejection // one of each part, those of probes first
	address string     // its address when it failed
	kept    bool       // see Ejection.Kept
}

// index returns where the ejection by a part of lbctl is; -1 if there is none.
func (f failing) index(by Ejector) int {
	return slices.IndexFunc(f.by, func(e Ejection) bool { return e.By == by })
}

// ejections has the instances that are ejected.
type ejections struct {
	share   float64                    // Options.MaxEjected
	failing map[string]map[id]failing  // by service
	total   map[string]map[Ejector]int // see Table.Ejected
}

// Eject takes an instance at a host and port out of rotation, if enough others of its
// service are left. It takes effect with the next observation; Changed fires for that. If the
// same part of lbctl has ejected the instance already, the first reason stays.
func (t *Table) Eject(service, hostPort string, e Ejection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := id{e.Node, e.ID}
	f := t.ejections.failing[service][k]
	if f.address != hostPort {
		f = failing{address: hostPort}
	}
	if t.records[service] == nil || e.By == "" || f.index(e.By) >= 0 {
		return
	}
	if t.ejections.failing[service] == nil {
		t.ejections.failing[service] = map[id]failing{}
	}
	if t.ejections.total[service] == nil {
		t.ejections.total[service] = map[Ejector]int{}
	}
	t.ejections.total[service][e.By]++
	f.by = append(slices.Clone(f.by), e)
	slices.SortFunc(f.by, precedence)
	t.ejections.failing[service][k] = f
	t.opts.Logger.Warn("instance ejected", "service", service, "instance", e.ID, "node", e.Node, "by", e.By, "reason", e.Reason)
	notify(t.changed)
}

// Ejectors returns all parts of lbctl that eject instances.
func Ejectors() []Ejector { return []Ejector{ByProbe, ByOutlier} }

// Ejected returns how many ejections there were since lbctl started, by service, also those of
// instances that still get traffic. A service that is gone is not among them.
func (t *Table) Ejected() map[string]map[Ejector]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	total := make(map[string]map[Ejector]int, len(t.ejections.total))
	for service, by := range t.ejections.total {
		total[service] = maps.Clone(by)
	}
	return total
}

// precedence sorts ejections: an instance that can't be reached answers nothing, so it is the
// first to go; then those that failed first.
func precedence(a, b Ejection) int {
	rank := func(e Ejection) int {
		if e.By == ByProbe {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Since.Compare(b.Since), compareEjections(a, b))
}

// Readmit ends the ejection of an instance by one part of lbctl. It takes effect with the next
// observation; Changed fires for that.
func (t *Table) Readmit(service, node, instance string, by Ejector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := id{node, instance}
	f := t.ejections.failing[service][k]
	n := f.index(by)
	if n < 0 {
		return
	}
	f.by = slices.Delete(slices.Clone(f.by), n, n+1)
	if len(f.by) == 0 {
		delete(t.ejections.failing[service], k)
		t.opts.Logger.Info("instance readmitted", "service", service, "instance", instance, "node", node, "by", by)
	} else {
		t.ejections.failing[service][k] = f
	}
	notify(t.changed)
}

// isOut reports whether an instance was ejected and gets no traffic.
func (x *ejections) isOut(service string, i Instance) bool {
	f := x.failing[service][i.key()]
	return len(f.by) > 0 && !f.kept
}

// of returns the ejections of an entry's instances. It drops the ejections of instances
// that Consul no longer has in rotation or has at another address, and of those that are
// no longer probed.
func (x *ejections) of(e Entry) []Ejection {
	all := x.current(e)
	slices.SortFunc(all, precedence)
	inRotation := Service{Instances: e.Instances}.InRotation()
	most := allowed(int(x.share*float64(inRotation)), inRotation)
	outliers := allowed(e.Policy.General().Outlier.WithDefaults().MaxEjectionPercent*inRotation/100, inRotation)
	for n := range all {
		out := &all[n]
		out.Kept = n >= most
		if out.By == ByOutlier {
			outliers--
			out.Kept = out.Kept || outliers < 0
		}
		k := id{out.Node, out.ID}
		f := x.failing[e.Name][k]
		f.kept = out.Kept
		x.failing[e.Name][k] = f
	}
	slices.SortFunc(all, compareEjections)
	return all
}

// current returns the first ejection of each failing instance of an entry, and drops the
// others' ejections.
func (x *ejections) current(e Entry) []Ejection {
	before := x.failing[e.Name]
	if len(before) == 0 {
		return nil
	}
	var all []Ejection
	after := map[id]failing{}
	for _, i := range e.Instances {
		f, ok := before[i.key()]
		if !ok || !i.InRotation() || f.address != i.HostPort() {
			continue
		}
		if e.Policy.General().Check == policy.CheckNone {
			f.by = slices.DeleteFunc(slices.Clone(f.by), func(e Ejection) bool { return e.By == ByProbe })
		}
		if len(f.by) > 0 {
			all = append(all, f.by[0])
			after[i.key()] = f
		}
	}
	x.failing[e.Name] = after
	if len(after) == 0 {
		delete(x.failing, e.Name)
	}
	return all
}

// allowed returns how many of a service's instances in rotation may be ejected: share, but at
// least one, and never all. If no instance can be reached, the network of this machine
// is the more likely cause, and trying them is better than serving nothing.
func allowed(share, inRotation int) int {
	return min(max(1, share), max(0, inRotation-1))
}
