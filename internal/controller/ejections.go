package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lbctl/internal/endpoints"
	"lbctl/internal/history"
)

// recordEjections adds the ejections and readmissions between two lists of entries to the
// history, one event for each service and kind. The table has logged them already. Both
// lists are sorted by name.
func (l *loop) recordEjections(now time.Time, before, after []endpoints.Entry) {
	for former, e := range withFormer(before, after) {
		var old []endpoints.Ejection
		if former != nil {
			old = former.Ejections
		}
		if slices.Equal(old, e.Ejections) {
			continue
		}
		l.addEjections(now, history.Ejected, e.Name, missingIn(old, e.Ejections))
		back := slices.DeleteFunc(missingIn(e.Ejections, old), func(x endpoints.Ejection) bool { return !inRotation(e, x) })
		for n := range back {
			back[n].Reason = ""
		}
		l.addEjections(now, history.Readmitted, e.Name, back)
	}
}

// missingIn returns those of all whose instances are not among known.
func missingIn(known, all []endpoints.Ejection) []endpoints.Ejection {
	var missing []endpoints.Ejection
	for _, x := range all {
		if !slices.ContainsFunc(known, func(y endpoints.Ejection) bool { return x.Node == y.Node && x.ID == y.ID }) {
			missing = append(missing, x)
		}
	}
	return missing
}

// inRotation reports whether Consul has an ejection's instance in rotation.
func inRotation(e *endpoints.Entry, x endpoints.Ejection) bool {
	return slices.ContainsFunc(e.Instances, func(i endpoints.Instance) bool {
		return i.Node == x.Node && i.ID == x.ID && i.InRotation()
	})
}

// addEjections adds one event for ejections of a service; none if there are none.
func (l *loop) addEjections(now time.Time, kind history.Kind, service string, ejections []endpoints.Ejection) {
	if len(ejections) == 0 {
		return
	}
	var instances, reasons []string
	kept := 0
	for _, x := range ejections {
		instances = append(instances, fmt.Sprintf("%s on %s", x.ID, x.Node))
		if x.Reason != "" && !slices.Contains(reasons, x.Reason) {
			reasons = append(reasons, x.Reason)
		}
		if x.Kept {
			kept++
		}
	}
	if more := len(instances) - changesListed; more > 0 {
		instances = append(instances[:changesListed], plural(more, "instance")+" more")
		reasons = reasons[:min(len(reasons), changesListed)]
	}
	if kept > 0 && kind == history.Ejected {
		reasons = append(reasons, "kept in rotation, because not enough others can serve: "+plural(kept, "instance"))
	}
	l.history.Add(history.Event{
		Time:       now,
		Kind:       kind,
		Generation: l.current.Number,
		Change:     service + ": " + strings.Join(instances, ", "),
		Reason:     strings.Join(reasons, "; "),
	})
}
