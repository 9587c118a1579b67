package endpoints

import (
	"cmp"
	"fmt"
	"time"
)

// keepMinimum holds what has just vanished of a service that would be left with
// fewer instances in rotation than its minimum. All of it is held: the second
// look finds out which are gone, and it may be all.
func (t *Table) keepMinimum(now time.Time, name string, s Service) {
	r := t.records[name]
	own := s.MinInstances
	if !s.OK && r.good != nil {
		own = r.good.MinInstances
	}
	least := cmp.Or(own, t.opts.MinInstances)
	left := s.InRotation() + len(r.held)
	if left >= least {
		return
	}
	var lost []vanishing
	for _, v := range t.vanished {
		if v.service == name && v.at.Equal(now) {
			lost = append(lost, v)
		}
	}
	verb := "instances vanished"
	if len(lost) == 1 {
		verb = "instance vanished"
	}
	t.hold(now, lost, fmt.Sprintf("%d %s from the catalog and left %d in rotation, less than the minimum of %d", len(lost), verb, left, least))
}
