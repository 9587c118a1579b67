package endpoints

import (
	"slices"
	"time"
)

// record is what the table remembers of one service.
type record struct {
	good       *Spec      // when it was last understood; nil: never was
	instances  []Instance // registered, at the last observation
	inRotation int        // how many of them are in rotation
	revision   uint64     // of the service at the last observation; 0: not known
	peak       int        // of instances, held ones included
	state      State
	since      time.Time

	heard     bool      // something of it was observed since lbctl started
	listed    bool      // by the last observation
	confirmed time.Time // when Consul last stood by what it said
	expired   bool      // when the entry was made

	entry  Entry  // before quarantine and claims
	madeAt uint64 // the revision of the service that it was made from
	// final is the entry's instances in the end; Entry.Revision counts their changes.
	final final
}

// final is what the Revision of an entry stands for.
type final struct {
	revision                  uint64
	instances, held, rotation []Instance
}

// spec is the service's Spec when it was last understood, or the zero one.
func (r *record) spec() Spec {
	if r.good == nil {
		return Spec{}
	}
	return *r.good
}

// isAt reports whether the last observation of the service had that revision. A nil
// record is of no service.
func (r *record) isAt(revision uint64) bool {
	return r != nil && revision != 0 && r.revision == revision
}

// serves reports whether an instance got traffic by the last entry.
func (r *record) serves(i Instance) bool {
	return slices.ContainsFunc(r.final.rotation, func(x Instance) bool { return x.key() == i.key() })
}

// id names an instance within its service.
type id struct{ node, id string }

func (i Instance) key() id { return id{i.Node, i.ID} }
