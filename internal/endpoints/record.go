package endpoints

import (
	"slices"
	"time"
)

// record is what the table remembers of one service.
type record struct {
	good       *Spec      // the last valid Spec; nil: there never was one
	instances  []Instance // registered at the last observation
	inRotation int        // how many of them are in rotation
	revision   uint64     // of the service at the last observation; 0: not known
	peak       int        // of instances, held ones included
	crowded    bool       // see Table.SetCrowded
	state      State
	since      time.Time

	heard     bool      // it was observed since lbctl started
	listed    bool      // it was in the last observation
	confirmed time.Time // when Consul last confirmed it
	expired   bool      // it was expired when the entry was made

	entry  Entry  // before quarantine and claims
	madeAt uint64 // the revision of the service when the entry was made
	// final has the entry's instances after quarantine and claims; Entry.Revision counts
	// their changes.
	final final
}

// final has everything that the Revision of an entry covers.
type final struct {
	revision                  uint64
	instances, held, rotation []Instance
}

// spec returns the service's last valid Spec, or the zero one.
func (r *record) spec() Spec {
	if r.good == nil {
		return Spec{}
	}
	return *r.good
}

// isAt reports whether the last observation of the service had the revision. It is false
// for a nil record.
func (r *record) isAt(revision uint64) bool {
	return r != nil && revision != 0 && r.revision == revision
}

// serves reports whether an instance gets traffic according to the last entry.
func (r *record) serves(i Instance) bool {
	return slices.ContainsFunc(r.final.rotation, func(x Instance) bool { return x.key() == i.key() })
}

// id identifies an instance within its service.
type id struct{ node, id string }

func (i Instance) key() id { return id{i.Node, i.ID} }
